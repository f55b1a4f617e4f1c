"""What every refusal tells its client, whichever part of the system refuses."""

from typing import Any, ClassVar


class Refusal(Exception):
    """A request that was not carried out; nothing was changed. The message says why and what to do.

    `status` is HTTP's, `kind` ends the problem's `type` (see quiktrade/api/problems.py).
    """

    status: ClassVar[int]
    kind: ClassVar[str]

    def members(self) -> dict[str, Any]:
        """The members of the problem document: `detail`, and whatever this kind of problem has besides."""
        return {"detail": str(self)}
