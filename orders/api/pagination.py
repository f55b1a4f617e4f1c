"""Divides a list into pages by position, so that orders that arrive meanwhile shift no page."""

import base64
import binascii
from datetime import datetime
from typing import Self
from uuid import UUID

from orders.selectors import ClientOrder, Position


class Cursor(Position):
    """The last order of a page, as a string that clients do not interpret."""

    @classmethod
    def of(cls, order: ClientOrder) -> Self:
        return cls(order.created_at, order.id)

    def encode(self) -> str:
        return base64.urlsafe_b64encode(f"{self.created_at.isoformat()} {self.id}".encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises: ValueError, if `encode` did not make it."""
        try:
            created_at, id_ = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode().split(" ")
            cursor = cls(datetime.fromisoformat(created_at), UUID(id_))
        except (ValueError, binascii.Error):
            raise ValueError("not a cursor") from None
        if cursor.created_at.tzinfo is None or cursor.encode() != text:
            raise ValueError("not a cursor")
        return cursor
