"""Looking orders up by what a person has in hand: an id, its beginning or as the list shortens it, the client's id or
name, the venue's id, an instrument.

Each way is an index look-up, or looks only among the newest orders: the table may have ten million rows.
"""

import re
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import QuerySet

from orders.models import CLIENT_ORDER_ID_PATTERN, Order

HELP = "Id, client's id or name, venue's id, ISIN"
FOUND_AT_MOST = 500
"""Orders that one search finds at most, newest first."""
NEWEST = 100_000
"""What has no index of its own, an instrument or the beginning of a client's id, is sought among these."""

CLIENTS = 20
"""Clients whose name begins with the text, of whom the newest orders are looked up one by one."""

_SHORTENED = re.compile(r"([0-9a-f]{8})?(?:…|\.\.\.)?([0-9a-f]{12})\Z")
_HEX = re.compile(r"[0-9a-f]{4,32}\Z")
_INSTRUMENT = re.compile(r"[A-Z0-9]{12}\Z")


def search(orders: QuerySet[Order], text: str) -> QuerySet[Order]:
    """Those of `orders` that `text` may mean; all of them where it is empty."""
    text = text.strip()
    if not text:
        return orders
    orders = orders.order_by("-pk")
    ways = [_by_id(orders, text), *_by_shortened_id(orders, text), orders.filter(venue_order_id=text[:64])]
    ways += _by_client(orders, text)
    if re.fullmatch(CLIENT_ORDER_ID_PATTERN, text):
        ways += [_by_client_order_id(orders, text), _newest(orders).filter(client_order_id__startswith=text)]
    if _INSTRUMENT.match(text.upper()):
        ways.append(_newest(orders).filter(instrument=text.upper()))
    found = {key for way in ways for key in way.values_list("pk", flat=True)[:FOUND_AT_MOST]}
    return orders.filter(pk__in=sorted(found, reverse=True)[:FOUND_AT_MOST])


def _by_id(orders: QuerySet[Order], text: str) -> QuerySet[Order]:
    """By the id, or all ids that begin so: a range of the primary key."""
    digits = text.lower().replace("-", "")
    if not _HEX.match(digits):
        return orders.none()
    return orders.filter(pk__gte=UUID(digits.ljust(32, "0")), pk__lte=UUID(digits.ljust(32, "f")))


def _by_shortened_id(orders: QuerySet[Order], text: str) -> list[QuerySet[Order]]:
    """As the list shows it, `01a205ec…48ec8dd4e003`: the first part is a minute of the key; or the end of it alone."""
    shown = _SHORTENED.match(text.lower())
    if shown is None:
        return []
    start, end = shown.groups()
    return [(_by_id(orders, start) if start else _newest(orders)).filter(pk__endswith=end)]


def _by_client(orders: QuerySet[Order], text: str) -> list[QuerySet[Order]]:
    """The newest of each client whose name begins so, by the index of that client's own list."""
    owners = User.objects.filter(username__startswith=text).order_by("username").values_list("pk", flat=True)
    return [orders.filter(owner_id=owner).order_by("-created_at", "-pk") for owner in owners[:CLIENTS]]


def _by_client_order_id(orders: QuerySet[Order], text: str) -> QuerySet[Order]:
    # The index begins with the owner, so each of them is asked for: a look-up per account, not per order.
    owners = User.objects.values_list("pk", flat=True)
    return orders.filter(owner_id__in=list(owners), client_order_id=text)


def _newest(orders: QuerySet[Order]) -> QuerySet[Order]:
    oldest = orders.values_list("pk", flat=True)[NEWEST : NEWEST + 1].first()
    return orders if oldest is None else orders.filter(pk__gt=oldest)
