"""Which addresses of others may be called: what we send must not reach what only we can reach.

An address is judged twice. `literal` tells from the text what can be told. `is_allowed` is asked about the address of
every connection when its socket is made. That one decides: a name may lead anywhere, may lead elsewhere by the time it
is used, and a number can be written in many ways.
"""

import errno
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

NOT_PUBLIC = "Its address is not a public one."

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The IPv6 addresses that lead into the internet. The others that Python calls global are not assigned."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""A translator sends these on to the IPv4 address in their last four bytes (RFC 6052)."""


class NotAllowed(OSError):
    """No socket is made for this address. The message does not repeat it: a name may lead into our network."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, NOT_PUBLIC)


def is_allowed(address: str, networks: Collection[IPv4Network | IPv6Network]) -> bool:
    """Whether this IP address may be called: a public one, or one in these networks."""
    ip = _meant(ip_address(address.partition("%")[0]))
    if any(ip in network for network in networks):
        return True
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast


def _meant(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address to which an IPv6 address leads in the end, or the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def literal(host: str) -> str | None:
    """The IP address that a host means without a look-up, in any of its spellings; None for a name."""
    if host.rstrip(".").lower().rpartition(".")[2] == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))  # 127.1, 2130706433, 0x7f.1
    except (OSError, UnicodeError):
        return None
