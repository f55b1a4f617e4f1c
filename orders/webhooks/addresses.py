"""Which addresses a webhook may have: a client must not reach, through us, what only we can reach.

An address is judged twice. `check_url` refuses at registration what can be told from the text. `guarded_socket` judges
the address of every connection at the moment when its socket is made. That one decides: a name may lead anywhere, may
lead elsewhere by the time it is used, and a number can be written in many ways.
"""

import socket
from typing import TYPE_CHECKING

from django.conf import settings
from yarl import URL

from orders.webhook_models import LONGEST_URL
from quiktrade import public_addresses
from quiktrade.public_addresses import NOT_PUBLIC, NotAllowed, literal

if TYPE_CHECKING:  # the web processes judge URLs, and have no other use for it
    import aiohttp


class UrlRefused(ValueError):
    """The URL of a webhook cannot be taken; the message says what is allowed."""


def is_allowed(address: str) -> bool:
    """Whether a webhook may be sent to this IP address: a public one, or one in `WEBHOOK_ALLOW`."""
    return public_addresses.is_allowed(address, settings.WEBHOOK_ALLOW)


def guarded_socket(address: "aiohttp.AddrInfoType") -> socket.socket:
    """Make the socket of a connection. aiohttp calls this whichever way it came to the address. Raises: NotAllowed."""
    family, kind, protocol, _, (host, *_) = address
    if not is_allowed(str(host)):
        raise NotAllowed
    return socket.socket(family, kind, protocol)


def check_url(text: str) -> str:
    """The URL as it will be used. Raises: UrlRefused."""
    if len(text) > LONGEST_URL or not text.isprintable() or any(map(str.isspace, text)):
        raise UrlRefused(f"A URL without blanks, of at most {LONGEST_URL} characters, is required.")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise UrlRefused("This is not a URL. One such as https://example.com/orders is required.") from None
    schemes = ("https",) if settings.PRODUCTION else ("https", "http")
    if url.scheme not in schemes or not host:
        raise UrlRefused(f"A URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)} is required.")
    if url.user is not None or url.password is not None:
        raise UrlRefused("A user name or password in the URL is not allowed. The signature proves who sends.")
    if url.fragment or "#" in text:
        raise UrlRefused("A fragment, the part from # on, is never sent. Leave it out.")
    if settings.WEBHOOK_PORTS and port not in settings.WEBHOOK_PORTS:
        ports = ", ".join(map(str, sorted(settings.WEBHOOK_PORTS)))
        raise UrlRefused(f"This port is not allowed. Allowed are: {ports}.")
    address = literal(host)
    if address is not None and not is_allowed(address):
        raise UrlRefused(_REFUSED)
    if len(str(url)) > LONGEST_URL:
        raise UrlRefused(f"Percent-encoded it is longer than {LONGEST_URL} characters.")
    return str(url)


_REFUSED = (
    f"{NOT_PUBLIC} Webhooks go to public addresses only, and to the networks that the setting QUIKTRADE_WEBHOOK_ALLOW "
    "of this installation names."
)
