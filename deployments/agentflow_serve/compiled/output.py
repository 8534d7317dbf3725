"""Compiled files beside other files: all of them or none, and never over anything that was not compiled before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from agentflow.compile import MARK
from agentflow_serve.errors import OutputNotWritten

_FIRST_BYTES = 1024


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
