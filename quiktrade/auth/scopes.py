"""What a token may be used for, as its claim `scope` says (RFC 6749, 3.3).

A view names what each of its actions needs in `required_scopes`, by the action's name; None needs a token and nothing
else. A view or an action that is not named there needs every scope, so that a new one is not open by mistake.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from quiktrade.errors import Refusal

if TYPE_CHECKING:  # Django REST framework imports this module while it makes that one
    from rest_framework.views import APIView


class Scope(StrEnum):
    READ = "orders:read"
    WRITE = "orders:write"
    CANCEL = "orders:cancel"
    STREAM = "stream"


ALL = " ".join(Scope)
_EVERY = frozenset(Scope)


class InsufficientScope(Refusal):
    """The token is good, and may not be used for this."""

    status = 403
    kind = "insufficient-scope"

    def __init__(self, needed: str) -> None:
        super().__init__(f"The token may not be used for this. It needs the scope {needed}: log in with it.")
        self.needed = needed

    def members(self) -> dict[str, Any]:
        return {**super().members(), "scope": self.needed}

    def headers(self) -> dict[str, str]:
        """As RFC 6750, 3.1 has it."""
        challenge = f'Bearer realm="api", error="insufficient_scope", scope="{self.needed}"'
        return {**super().headers(), "WWW-Authenticate": challenge}


class HasScope(BasePermission):
    def has_permission(self, request: Request, view: "APIView") -> bool:
        action = getattr(view, "action", "")
        if action is None or action == "metadata":  # the method is not offered, and is answered so
            return True
        needed = getattr(view, "required_scopes", {}).get(action, ALL)
        granted: frozenset[str] = getattr(request.auth, "scopes", frozenset())
        if needed is None or needed in granted or (needed is ALL and granted >= _EVERY):
            return True
        raise InsufficientScope(needed)


def scopes_of(text: str) -> frozenset[str]:
    """Raises: ValueError, if the text names a scope that there is not."""
    wanted = frozenset(text.split())
    if not wanted or not wanted <= _EVERY:
        raise ValueError(f"Name one or more of these, with a space between them: {ALL}.")
    return wanted


def text_of(scopes: frozenset[str]) -> str:
    return " ".join(scope for scope in Scope if scope in scopes)
