"""Service accounts: programs that get their tokens for a client id and a secret (RFC 6749, 4.4).

A secret is a random number of 256 bits. Nobody guesses one, so it is stored as a SHA-256 and checked in microseconds:
neither the hash of a password nor a count of failures is needed. There may be two at a time: a new one is made, the
program is given it, and the old one is removed when its last use shows that nobody has it any more.
"""

import hashlib
import secrets
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from quiktrade.errors import Refusal
from quiktrade.models import ApiClient, ApiClientSecret

MOST_SECRETS = 2
PREFIX = "qtc_"


class InvalidClient(Refusal):
    """The id, the secret or the state of the service account is wrong; which of them is not told."""

    status = 401
    kind = "invalid-client"

    def __init__(self) -> None:
        super().__init__("No service account that may be used has this client id and secret. An operator makes them.")

    def members(self) -> dict[str, Any]:
        return {**super().members(), "error": "invalid_client"}  # as RFC 6749, 5.2 has it

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Basic realm="api"'}


class WrongNetwork(Refusal):
    """The service account, or a token of it, is used from elsewhere."""

    status = 403
    kind = "wrong-network"

    def __init__(self) -> None:
        super().__init__("This service account may not be used from your address. An operator keeps its networks.")


def new_id() -> str:
    return PREFIX + secrets.token_hex(10)


def create(*, user: User, name: str, scope: str, networks: str = "", expires_at: datetime | None = None) -> ApiClient:
    return ApiClient.objects.create(
        id=new_id(), user=user, name=name, scope=scope, networks=networks, expires_at=expires_at
    )


def add_secret(client: ApiClient) -> str:
    """Make a secret, which is returned this once. Raises: ValueError, if there are two."""
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        ApiClient.objects.select_for_update().get(pk=client.pk)
        if client.secrets.count() >= MOST_SECRETS:
            raise ValueError(f"There are {MOST_SECRETS} secrets. Remove the one that is not used any more.")
        client.secrets.create(digest=_digest(secret))
    return secret


def usable() -> Q:
    """The condition under which a service account may be used; its user's account must be valid, too.

    Whoever works in the console has none: they have a second factor, and a program has not.
    """
    a_client = Q(user__is_staff=False, user__is_superuser=False)
    return a_client & Q(disabled_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))


def authenticate(client_id: str, secret: str, *, address: str) -> ApiClient:
    """The service account of an id and a secret, whose use is noted. Raises: InvalidClient, WrongNetwork."""
    if "\0" in client_id:
        raise InvalidClient
    usable_ones = ApiClient.objects.filter(usable(), pk=client_id, user__is_active=True)
    client = usable_ones.filter(secrets__digest=_digest(secret)).select_related("user").first()
    if client is None:
        raise InvalidClient
    require_network(client.networks, address)
    ApiClientSecret.objects.filter(client=client, digest=_digest(secret)).update(last_used_at=Now())
    return client


def require_network(networks: str, address: str) -> None:
    """`networks` are those of a service account. Raises: WrongNetwork."""
    if not networks:
        return
    try:
        found = plain(ip_address(address))
    except ValueError:  # such as the empty name of a socket
        raise WrongNetwork from None
    if not any(found in ip_network(network) for network in networks.split()):
        raise WrongNetwork


def plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 socket shows as ::ffff:192.0.2.7, or the address itself."""
    return getattr(address, "ipv4_mapped", None) or address


def networks_of(text: str) -> str:
    """The networks as they are stored. Raises: ValueError, which names what cannot be read."""
    return " ".join(str(ip_network(network)) for network in text.replace(",", " ").split())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
