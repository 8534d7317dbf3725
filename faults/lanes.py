"""Scenarios in processes of their own, some of them side by side, so that one works while another waits."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from faults.report import Report

LOOK_EVERY_S = 0.1


def run_lanes(names: Sequence[str], run: Callable[[str], Report], *, at_once: int) -> Generator[Report, None, None]:
    """The report of each as it ends; they begin in this order. One that gives none has died, which is a violation.

    Each is forked from this process, which must have no threads.
    """
    waiting, running = deque(names), dict[int, str]()
    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    name = waiting.popleft()
                    running[_forked(run, name, Path(folder) / name)] = name
                time.sleep(LOOK_EVERY_S)
                for name, status in [(running.pop(child), status) for child, status in _ended(running)]:
                    yield _report_of(name, Path(folder) / name, status)
        except KeyboardInterrupt:  # which the terminal has given to the children as well
            raise
        except BaseException:  # also that of a generator which is closed, because a report could not be printed
            for child in running:
                os.kill(child, signal.SIGINT)
            raise
        finally:
            for child in running:  # they end what they started
                os.waitpid(child, 0)


def _ended(running: Iterable[int]) -> list[tuple[int, int]]:
    """Which of these children are over, and how."""
    looked = (os.waitpid(child, os.WNOHANG) for child in running)
    return [(child, os.waitstatus_to_exitcode(status)) for child, status in looked if child]


def _forked(run: Callable[[str], Report], name: str, target: Path) -> int:
    if (child := os.fork()) != 0:
        return child
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Ray prints a paragraph for every process that dies, and many do
        target.write_text(json.dumps(asdict(run(name))))
        status = 0
    except Exception:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _report_of(name: str, target: Path, status: int) -> Report:
    if status == 0:
        return Report(**json.loads(target.read_text()))
    return Report(name, violations=[f"the scenario did not come to its end (exit status {status})"]).end()
