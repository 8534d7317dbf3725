"""Where compiled files go: all of them or none, and never over anything that was not compiled before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from agentflow.compile import MARK
from agentflow_serve.errors import OutputNotWritten
from agentflow_serve.generated import LIST, write_generated

_FIRST_BYTES = 1024
_CACHES = ("__pycache__", ".pytest_cache")
"""What Python and pytest leave where an agent was run or tested; nobody's work."""


def write_agent(folder: Path, files: Mapping[str, str], *, flow: str) -> None:
    """Make or renew a folder that holds nothing but a compiled flow. Raises OutputNotWritten."""
    for cache in _CACHES:
        if (folder / LIST).is_file() and not (folder / cache).is_symlink():
            shutil.rmtree(folder / cache, ignore_errors=True)
    write_generated(folder, files, kind="agent", flow=flow)


def write_beside(folder: Path, files: Mapping[str, str]) -> None:
    """Write these files into a folder, in place of compiled files of these names only. Raises OutputNotWritten."""
    folder = Path(os.path.abspath(folder))
    for name in files:
        if os.path.lexists(folder / name) and not _is_compiled(folder / name):
            raise OutputNotWritten(f"{folder / name} was not compiled from a flow: choose another name, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".agentflow-") as scratch:
            for name, text in files.items():
                Path(scratch, name).write_text(text, encoding="utf-8")
            for name in files:
                Path(scratch, name).replace(folder / name)
    except OSError as exc:
        raise OutputNotWritten(f"cannot write to {folder}: {exc.strerror}") from exc


def _is_compiled(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(_FIRST_BYTES).partition(b"\n")[0]
