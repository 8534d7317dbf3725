"""Folders of generated files: made as a whole, renewed as a whole, and never over somebody's own work.

A folder of ours has a list of its files with their digests. One that was changed by hand is not written over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentflow_serve.errors import OutputNotWritten, ProjectNotWritten
from agentflow_serve.scaffold import write_folder

LIST = ".agentflow.json"


def write_generated(target: Path, texts: Mapping[str, str | bytes], *, kind: str, flow: str) -> None:
    """Make or renew `target` with exactly these files. `kind` and `flow` say what they are and of which flow.

    Raises OutputNotWritten where the folder holds anything else; it is then as it was.
    """
    files = {name: _digest(text if isinstance(text, bytes) else text.encode()) for name, text in texts.items()}
    listed: dict[str, str | bytes] = {
        **texts,
        LIST: json.dumps({"kind": kind, "flow": flow, "files": files}, indent=2) + "\n",
    }
    target = Path(os.path.abspath(target))
    try:
        if not target.is_dir() or not any(target.iterdir()):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_folder(target, listed)
            return
        _check_ours(target, kind=kind, flow=flow)
        _replace(target, listed)
    except ProjectNotWritten as exc:
        raise OutputNotWritten(str(exc)) from exc
    except OSError as exc:
        raise OutputNotWritten(f"cannot write {target}: {exc.strerror}") from exc


def _check_ours(target: Path, *, kind: str, flow: str) -> None:
    known = _list_of(target)
    if known is None or known.get("kind") != kind:
        raise OutputNotWritten(f"{target} is not empty and holds no {kind} of ours: choose another folder")
    if known["flow"] != flow:
        raise OutputNotWritten(
            f"{target} holds the {kind} of the flow '{known['flow']}', not of '{flow}': choose another folder"
        )
    found = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file() and path.name != LIST}
    strange = sorted(found.keys() - known["files"].keys())
    changed = sorted(
        name
        for name, path in found.items()
        if name not in strange and _digest(path.read_bytes()) != known["files"][name]
    )
    if strange or changed:
        what = f"{(strange or changed)[0]} was {'added' if strange else 'changed'} by hand"
        raise OutputNotWritten(f"{target}: {what}; move it away, or choose another folder")


def _list_of(target: Path) -> dict[str, Any] | None:
    try:
        known = json.loads((target / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("files"), dict) and "flow" in known else None


def _replace(target: Path, texts: Mapping[str, str | bytes]) -> None:
    """The old folder goes aside and the new one takes its place; if that fails the old one comes back."""
    with TemporaryDirectory(dir=target.parent, prefix=".agentflow-") as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        write_folder(fresh, texts)
        target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            old.rename(target)
            raise


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
