"""The base class of every refusal of a request, whichever part of the system refuses."""

from typing import Any, ClassVar


class Refusal(Exception):
    """A request that was not carried out; nothing was changed. The message says why and what to do.

    `status` is the HTTP status, and `kind` the last part of the problem's `type` (see quiktrade/api/problems.py).
    """

    status: ClassVar[int]
    kind: ClassVar[str]
    retry_seconds: ClassVar[int | None] = None
    """After this time the same request may succeed; None where a repetition changes nothing."""

    def headers(self) -> dict[str, str]:
        return {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}

    def members(self) -> dict[str, Any]:
        """The members of the problem document: `detail`, and the further ones of this kind of problem."""
        return {"detail": str(self)}
