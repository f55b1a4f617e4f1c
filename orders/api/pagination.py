"""Pages by position: every page costs the same, and orders that arrive meanwhile shift none."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from django.db.models import Q, QuerySet

from orders.models import Order


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last order of a page. Opaque to clients."""

    created_at: datetime
    id: UUID

    @classmethod
    def of(cls, order: Order) -> Self:
        return cls(order.created_at, order.id)

    def encode(self) -> str:
        return base64.urlsafe_b64encode(f"{self.created_at.isoformat()} {self.id}".encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises: ValueError, if it is not what `encode` made."""
        try:
            created_at, id_ = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode().split(" ")
            cursor = cls(datetime.fromisoformat(created_at), UUID(id_))
        except (ValueError, binascii.Error):
            raise ValueError("not a cursor") from None
        if cursor.created_at.tzinfo is None or cursor.encode() != text:
            raise ValueError("not a cursor")
        return cursor


def page_after(orders: QuerySet[Order], cursor: Cursor | None, *, newest_first: bool, limit: int) -> list[Order]:
    """Up to `limit` orders behind the cursor, by time of creation and id."""
    direction, sign = ("lt", "-") if newest_first else ("gt", "")
    if cursor is not None:
        # The first condition repeats the second's outer bound in the form that an index range can use.
        orders = orders.filter(
            Q(**{f"created_at__{direction}e": cursor.created_at}),
            Q(**{f"created_at__{direction}": cursor.created_at}) | Q(**{f"id__{direction}": cursor.id}),
        )
    return list(orders.order_by(f"{sign}created_at", f"{sign}id")[:limit])
