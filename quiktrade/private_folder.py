"""A folder for files of this user alone, on this machine."""

import os
import tempfile
from pathlib import Path


def private_folder() -> Path:
    """Raises: OSError, if it cannot be made or belongs to somebody else."""
    made = Path(tempfile.gettempdir()) / f"quiktrade-{os.geteuid()}"
    made.mkdir(mode=0o700, exist_ok=True)
    if made.stat().st_uid != os.geteuid():
        raise PermissionError(f"{made} belongs to another user; remove it or set TMPDIR")
    return made
