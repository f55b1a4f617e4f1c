"""The channels by which people are told, as QUIKTRADE_ALERTS lists them. The settings read it: it needs no Django apps.

A channel has a name that shows nothing of its secret. Rows, pages and the log know channels by their names.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import SplitResult, unquote, urlsplit

from quiktrade.public_addresses import is_allowed, literal

MAIL, WEBHOOK, PAGERDUTY, SLACK, TEAMS = "mailto", "https", "pagerduty", "slack", "teams"
PAGERDUTY_URLS = {
    "pagerduty": "https://events.pagerduty.com/v2/enqueue",
    "pagerduty-eu": "https://events.eu.pagerduty.com/v2/enqueue",
}
KINDS = (
    "mailto:ops@example.com, https://host/path#whsec_… (signed with that secret), pagerduty:KEY or pagerduty-eu:KEY, "
    "slack:https://…, teams:https://…"
)
_MAIL_ADDRESS = re.compile(r"[^\s@,<>\"()]+@[^\s@,<>\"()]+")
_SECRET_BYTES = range(24, 65)
"""As Standard Webhooks has them."""


@dataclass(frozen=True)
class Channel:
    kind: str
    name: str
    address: str = field(repr=False)
    """A mail address, or the URL to which it is sent."""
    secret: str = field(default="", repr=False)
    """What signs, or PagerDuty's key."""


@dataclass(frozen=True)
class Mail:
    """The server that takes mail."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    starttls: bool
    tls: bool


class Refused(ValueError):
    """It cannot be used; the message says what is needed, and repeats nothing of it."""


def read(text: str, *, schemes: Collection[str], networks: Collection[IPv4Network | IPv6Network]) -> list[Channel]:
    """The channels of QUIKTRADE_ALERTS, which has their addresses with blanks between them. Raises: Refused."""
    channels: list[Channel] = []
    for number, address in enumerate(text.split(), 1):
        try:
            channel = _channel(address, schemes, networks)
            if any(channel.name == other.name for other in channels):
                raise Refused("is there twice")
        except Refused as error:
            raise Refused(f"QUIKTRADE_ALERTS: address {number} {error}") from None
        channels.append(channel)
    return channels


def _channel(text: str, schemes: Collection[str], networks: Collection[IPv4Network | IPv6Network]) -> Channel:
    kind, _, rest = text.partition(":")
    kind = kind.lower()
    if kind == MAIL:
        address = unquote(rest)
        if not _MAIL_ADDRESS.fullmatch(address) or not address.isascii():
            raise Refused("must be a mail address such as mailto:ops@example.com")
        return Channel(MAIL, f"mailto:{address}", address)
    if kind in PAGERDUTY_URLS:
        if not re.fullmatch(r"[A-Za-z0-9]{20,64}", rest):
            raise Refused(f"must be {kind}: and an integration key of PagerDuty, letters and digits only")
        return Channel(PAGERDUTY, _name(kind, "", rest), PAGERDUTY_URLS[kind], rest)
    if kind in (SLACK, TEAMS):
        url = _url(rest, schemes, networks, needed=f"{kind}:https://…")
        if url.fragment:
            raise Refused("must have no # in its URL")
        return Channel(kind, _name(kind, url.netloc, rest), rest)
    if kind in schemes:
        url = _url(text, schemes, networks, needed="https://host/path#whsec_…")
        _check_secret(url.fragment)
        address = url._replace(fragment="").geturl()
        return Channel(WEBHOOK, _name(kind, url.netloc, address), address, url.fragment)
    raise Refused(f"is of no known kind. Allowed are: {KINDS}")


def _name(kind: str, host: str, secret: str) -> str:
    """Two channels of one host differ by a few digits of a digest."""
    return f"{kind}:{host}{'#' if host else ''}{hashlib.sha256(secret.encode()).hexdigest()[:8]}"


def _url(
    text: str, schemes: Collection[str], networks: Collection[IPv4Network | IPv6Network], *, needed: str
) -> SplitResult:
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise Refused(f"must be {needed}") from None
    if url.scheme not in schemes or not host or port == 0 or not text.isascii():
        raise Refused(f"must be {needed}")
    if url.username is not None or url.password is not None:
        raise Refused("must have no user name or password in its URL")
    number = literal(host)
    if number is not None and not is_allowed(number, networks):
        raise Refused("leads to an address that is not public. QUIKTRADE_ALERTS_ALLOW may name its network")
    return url


def _check_secret(text: str) -> None:
    key = b""
    if text.startswith("whsec_"):
        try:
            key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            pass
    if len(key) not in _SECRET_BYTES:
        raise Refused(
            "must end with # and the secret that signs: whsec_ and 24 to 64 random bytes in base64, "
            'as `echo "whsec_$(openssl rand -base64 32)"` makes them'
        )


def read_mail(text: str) -> Mail | None:
    """The mail server of QUIKTRADE_SMTP. Raises: Refused."""
    if not text:
        return None
    ports = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    wrong_port = port == 0
    if not host or url.scheme not in ports or url.path not in ("", "/") or url.query or url.fragment or wrong_port:
        raise Refused(
            "QUIKTRADE_SMTP must be smtp://host:25, smtp+starttls://user:password@host:587 or smtps://…:465; in a "
            "password %, @, /, :, ? and # are written %25, %40, %2F, %3A, %3F and %23"
        )
    if url.password and url.scheme == "smtp":
        raise Refused("QUIKTRADE_SMTP has a password, which must not be sent in clear: use smtps or smtp+starttls")
    return Mail(
        host,
        port or ports[url.scheme],
        unquote(url.username or ""),
        unquote(url.password or ""),
        starttls=url.scheme == "smtp+starttls",
        tls=url.scheme == "smtps",
    )


def named(channels: Sequence[Channel], name: str) -> Channel | None:
    return next((channel for channel in channels if channel.name == name), None)
