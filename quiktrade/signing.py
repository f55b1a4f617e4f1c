"""Secrets and signatures, as Standard Webhooks 1.0.0 has them. Its own library signs."""

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

SECRET_BYTES = 32


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(message_id: str, body: str, *, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """The three headers. While a secret is being replaced there are two, and a signature of each."""
    at = at.astimezone(UTC)  # the library replaces the time zone instead of converting the time
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in secrets),
    }
