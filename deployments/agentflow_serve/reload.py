"""Serving while files change: a good change is deployed in place, a bad one is told and changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from agentflow_serve.errors import AppInvalid
from agentflow_serve.self_contained import SelfContained

MODULE_TIMEOUT_S = 60


def watch(files: Iterable[Path], stop: Event) -> bool:
    """Wait until one of the files changes, comes or goes; False when `stop` was set before.

    The folders are watched, because editors write another file and give it the name.
    """
    from watchfiles import watch as changes

    wanted = {str(file.absolute()) for file in files} | {str(file.resolve()) for file in files}
    folders = {str(Path(name).parent) for name in wanted if Path(name).parent.is_dir()}
    for _ in changes(
        *sorted(folders),
        watch_filter=lambda _, name: name in wanted,
        stop_event=stop,
        recursive=False,
        raise_interrupt=False,
        debounce=400,
    ):
        return True
    return False


def serve_changes(
    first: SelfContained,
    *,
    read: Callable[[], SelfContained],
    deploy: Callable[[Mapping[str, Any]], None],
    explain: Callable[[Exception], object],
    say: Callable[[str], None],
    stop: Event,
    wait: Callable[[Iterable[Path], Event], bool] = watch,
) -> None:
    """Until `stop`: read again after each change, and deploy what is good and new.

    `read` and `deploy` raise what `explain` tells the user; what was served before goes on.
    """
    served, files = first, first.files
    while wait(files, stop):
        try:
            fresh = read()
            files = fresh.files
            if fresh.document == served.document:
                continue
            check_modules(fresh.modules)
            say("changed; deploying in place ...")
            deploy(fresh.document)
        except Exception as exc:  # noqa: BLE001 - the edge of one edit: the next may be right
            explain(exc)
            say("the version before goes on; waiting for the next change")
            continue
        served = fresh
        if not stop.is_set():
            say("the new version is served")


def check_modules(modules: Iterable[str]) -> None:
    """Whether the code of the flows can be imported, in a process that has not seen it before. Raises AppInvalid."""
    for module in modules:
        program = "import importlib, sys; importlib.import_module(sys.argv[1])"
        path = [entry for entry in sys.path if entry]
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {program}", module],
            capture_output=True,
            text=True,
            timeout=MODULE_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise AppInvalid(f"the module {module} cannot be imported: {' '.join(lines[-3:])}")
