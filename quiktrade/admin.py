"""Django looks for an application's pages here; they are in `quiktrade/console/`."""

from quiktrade.console import incidents, service_accounts, system

__all__ = ["incidents", "service_accounts", "system"]
