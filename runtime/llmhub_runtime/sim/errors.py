"""What can go wrong in the simulated model.

SimError
|- SimBadRequest     the caller's request (or its schema) cannot be served; answered with a 4xx
|- SimScriptError    a script file or document is not a script
|- SimStartError     the server or the child process did not start
`- SimControlError   a running server refused a control call
"""

from __future__ import annotations


class SimError(Exception):
    """Base of every error this package raises."""


class SimBadRequest(SimError):
    """The request cannot be served as it is; the server answers `status` with this sentence."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class SimScriptError(SimError):
    """The document is not a valid script. `source` names the file, if there was one."""

    def __init__(self, message: str, *, source: str | None = None) -> None:
        super().__init__(message)
        self.source = source


class SimStartError(SimError):
    """The simulated model did not come up. `returncode` is set when a child process ended."""

    def __init__(self, message: str, *, returncode: int | None = None) -> None:
        super().__init__(message)
        self.returncode = returncode


class SimControlError(SimError):
    """A control call was answered with `status` instead of success."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
