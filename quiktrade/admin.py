"""Django looks for an application's pages here; they are in `quiktrade/console/`."""

from quiktrade.console import system

__all__ = ["system"]
