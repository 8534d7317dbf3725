"""The `agentflow` command in this process: what it printed where, and with which code it ended."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from unittest.mock import patch

from agentflow_serve.commands import main


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def agentflow(*arguments: str) -> Ended:
    """Call it by its entry point. An exception that is no exit is a traceback for the user, and comes through."""
    out, err = StringIO(), StringIO()
    with patch.object(sys, "argv", ["agentflow", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            return Ended(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("the entry point always ends with an exit")
