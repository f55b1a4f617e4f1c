"""Divides a list into pages by position, so that what arrives meanwhile shifts no page."""

import base64
import binascii
from datetime import datetime
from typing import Self
from uuid import UUID

from orders.executions import Place, Trade
from orders.selectors import ClientOrder, Position


class Cursor(Position):
    """The last order of a page, as a string that clients do not interpret."""

    @classmethod
    def of(cls, order: ClientOrder) -> Self:
        return cls(order.created_at, order.id)

    def encode(self) -> str:
        return _encoded(self.created_at, self.id)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises: ValueError, if `encode` did not make it."""
        created_at, id_ = _decoded(text)
        cursor = cls(created_at, UUID(id_))
        _check(created_at, cursor.encode(), text)
        return cursor


class ExecutionCursor(Place):
    """The last execution of a page, likewise."""

    @classmethod
    def of(cls, trade: Trade) -> Self:
        return cls(trade.executed_at, trade.id)

    def encode(self) -> str:
        return _encoded(self.executed_at, self.id)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises: ValueError, if `encode` did not make it."""
        executed_at, id_ = _decoded(text)
        cursor = cls(executed_at, int(id_))
        _check(executed_at, cursor.encode(), text)
        if not 0 < cursor.id < 2**63:
            raise ValueError("not a cursor")
        return cursor


def _encoded(at: datetime, id_: object) -> str:
    return base64.urlsafe_b64encode(f"{at.isoformat()} {id_}".encode()).decode().rstrip("=")


def _decoded(text: str) -> tuple[datetime, str]:
    try:
        at, id_ = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode().split(" ")
        return datetime.fromisoformat(at), id_
    except (ValueError, binascii.Error):
        raise ValueError("not a cursor") from None


def _check(at: datetime, encoded: str, text: str) -> None:
    if at.tzinfo is None or encoded != text:
        raise ValueError("not a cursor")
