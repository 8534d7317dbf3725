"""Which kind of file system a path is on."""

from __future__ import annotations

import re
from pathlib import Path


def filesystem_of(path: Path, mounts: str) -> str | None:
    """The type of the innermost mount that holds an absolute path; `mounts` is the text of /proc/self/mounts."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        _, folder, kind, *_ = (*line.split(" "), "", "", "")
        # Where two have the same folder, the later one covers the earlier.
        if folder and path.is_relative_to(_unescaped(folder)) and (found is None or len(folder) >= found[0]):
            found = (len(folder), kind)
    return found[1] if found else None


def _unescaped(folder: str) -> str:
    """The kernel writes spaces, tabs and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), folder)
