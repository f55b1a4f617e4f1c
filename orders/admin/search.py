"""Searches orders by an id, its beginning or its form in the list, the client's id or name, the venue's id, or an
instrument.

Each search uses an index, or covers only the newest orders: the table may have ten million rows.
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
"""An instrument or the beginning of a client's id has no index: it is searched only among this many newest orders."""

CLIENTS = 20
"""At most this many clients whose name begins with the text: their newest orders are looked up one by one."""

_SHORTENED = re.compile(r"([0-9a-f]{8})?(?:…|\.\.\.)?([0-9a-f]{12})\Z")
_HEX = re.compile(r"[0-9a-f]{4,32}\Z")
_INSTRUMENT = re.compile(r"[A-Z0-9]{12}\Z")


def search(orders: QuerySet[Order], text: str) -> QuerySet[Order]:
    """The orders that `text` may mean; all of them if it is empty."""
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
    """Orders with this id, or whose ids begin with the text: a range of the primary key."""
    digits = text.lower().replace("-", "")
    if not _HEX.match(digits):
        return orders.none()
    return orders.filter(pk__gte=UUID(digits.ljust(32, "0")), pk__lte=UUID(digits.ljust(32, "f")))


def _by_shortened_id(orders: QuerySet[Order], text: str) -> list[QuerySet[Order]]:
    """Orders by an id as the list shows it, `01a205ec…48ec8dd4e003`, or by its end. The first part is a minute of
    keys."""
    shown = _SHORTENED.match(text.lower())
    if shown is None:
        return []
    start, end = shown.groups()
    return [(_by_id(orders, start) if start else _newest(orders)).filter(pk__endswith=end)]


def _by_client(orders: QuerySet[Order], text: str) -> list[QuerySet[Order]]:
    """The newest orders of each client whose name begins with the text, by the index of that client's list."""
    owners = User.objects.filter(username__startswith=text).order_by("username").values_list("pk", flat=True)
    return [orders.filter(owner_id=owner).order_by("-created_at", "-pk") for owner in owners[:CLIENTS]]


def _by_client_order_id(orders: QuerySet[Order], text: str) -> QuerySet[Order]:
    # The index begins with the owner, so there is one look-up for each account, not for each order.
    owners = User.objects.values_list("pk", flat=True)
    return orders.filter(owner_id__in=list(owners), client_order_id=text)


def _newest(orders: QuerySet[Order]) -> QuerySet[Order]:
    oldest = orders.values_list("pk", flat=True)[NEWEST : NEWEST + 1].first()
    return orders if oldest is None else orders.filter(pk__gt=oldest)
