"""Keys that are mounted as files, as a Secret is: each becomes the environment variable of its name."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

KEYS_DIR = "AGENTFLOW_KEYS_DIR"
"""The variable that names the folder. In the pod's own environment, keys would be in `kubectl describe` and in every
process that Ray starts; from files, only the replicas of the flow have them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def export_keys(environ: MutableMapping[str, str]) -> None:
    """Set a variable for every file there, unless it is set already. A folder that is not there has none."""
    folder = environ.get(KEYS_DIR)
    if not folder or not Path(folder).is_dir():
        return
    for file in sorted(Path(folder).iterdir()):
        if _NAME.fullmatch(file.name) and file.is_file():
            environ.setdefault(file.name, file.read_text(encoding="utf-8").strip())
