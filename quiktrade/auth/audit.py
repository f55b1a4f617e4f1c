"""Tells the log what happens to accounts and their tokens, as events `auth.*`.

A name is logged only if an account has it: people type passwords into the field of the name.
"""

import logging
from typing import Any

from django.contrib.auth import signals
from django.contrib.auth.models import User

logger = logging.getLogger(__name__)


def watch_console() -> None:
    """Tell of log-ins to the console, and of wrong passwords there and at the API."""
    signals.user_logged_in.connect(_logged_in, dispatch_uid="quiktrade.auth.audit")
    signals.user_logged_out.connect(_logged_out, dispatch_uid="quiktrade.auth.audit")
    signals.user_login_failed.connect(_wrong, dispatch_uid="quiktrade.auth.audit")


def logged_in(account: Any, *, to: str) -> None:
    logger.info("Logged in", extra={"event": "auth.logged_in", "to": to, **_of(account)})


def log_in_refused(account: Any, why: str) -> None:
    """`account` is None where no account has the name."""
    logger.warning("Log-in refused", extra={"event": "auth.log_in_refused", "why": why, **_of(account)})


def refreshed(account_id: str) -> None:
    logger.info("Tokens refreshed", extra={"event": "auth.refreshed", "account_id": account_id})


def refresh_refused(why: str) -> None:
    logger.warning("Refresh of tokens refused", extra={"event": "auth.refresh_refused", "why": why})


def session_ended(account_id: str) -> None:
    logger.info("Session ended", extra={"event": "auth.session_ended", "account_id": account_id})


def account_made(account: User, *, by: str) -> None:
    logger.info("Account made", extra={"event": "auth.account_made", "actor": by, **_of(account)})


def account_changed(account: User, what: object, *, by: str) -> None:
    """`what` is the names of what was changed, or a sentence; never a value."""
    logger.info("Account changed", extra={"event": "auth.account_changed", "what": what, "actor": by, **_of(account)})


def _of(account: Any) -> dict[str, Any]:
    return {} if account is None else {"account": account.get_username(), "account_id": account.pk}


def _logged_in(sender: Any, user: Any, **kwargs: Any) -> None:
    logged_in(user, to="console")


def _logged_out(sender: Any, user: Any, **kwargs: Any) -> None:
    if user is not None:
        logger.info("Logged out", extra={"event": "auth.logged_out", **_of(user)})


def _wrong(sender: Any, credentials: dict[str, Any], **kwargs: Any) -> None:
    name = credentials.get("username")
    log_in_refused(User.objects.filter(username=name).only("username").first(), "wrong name or password")
