"""The errors of served flows, and how a predictor's look on the wire.

    ServingError
    ├── AppInvalid            the arguments of the app do not make an app; the operator must change them
    ├── ProjectNotWritten     a new project's folder cannot be made; nothing was written
    ├── LedgerAway            the app's shared actor does not answer; who can do without it does
    ├── ManifestsInvalid      a flow and the settings of a cluster make no manifests; nothing was written
    ├── ServeConfigUnread     the text of a serve config in a manifest is none
    ├── PackageInvalid        the image of a flow cannot be put together; nothing was written
    ├── OutputNotWritten      a folder of generated files is not ours to replace; nothing was written
    ├── DeployFailed          a cluster refused an app, or did not get it running
    └── PredictorError        a request has no answer; itself, that is a defect of ours
        ├── RequestRefused    the edge turned the request away: too large, too deep, too late, a bad header, no key
        └── RunFailed         a run ended without an answer

What kserve calls an error (a malformed tensor, an unknown model) keeps kserve's classes and kserve's bytes,
`{"error": "..."}`. Predictor errors answer `{"error", "code", "node", "trace_id", "retry_after"}`; one that a budget
or a policy is the reason of has `reason`, `limit` and `window` as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentflow.failure import Refused
from runtime_core.report import RunError, RunReport

STATUS: Mapping[str, int] = {
    "bad_input": 400,
    "deadline_exceeded": 408,
    "session_full": 409,
    "rate_limited": 429,
    "budget_exceeded": 402,
    "policy_denied": 403,
    "cancelled": 499,
    "node_failed": 500,
    "condition_failed": 500,
    "no_output": 500,
    "bad_output": 500,
    "internal": 500,
    "node_lost": 503,
    "overloaded": 503,
    "unavailable": 503,
}
RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 3600.0
MAX_SENTENCE = 2000


class ServingError(Exception):
    """Base of this package's errors."""


class AppInvalid(ServingError):
    """A flow, its models and the arguments of a serve config do not fit together; nothing was deployed."""


class ProjectNotWritten(ServingError):
    """The folder of a new project is taken or cannot be made; nothing was written."""


class LedgerAway(ServingError):
    """The shared actor died, is late, or failed in a way that nobody foresaw.

    What it was asked may be done or not, or be done later; without `sent` it was not asked.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class ManifestsInvalid(ServingError):
    """A flow and the settings of a cluster do not make manifests; nothing was written."""


class ServeConfigUnread(ServingError):
    """The text in which a serve config should stand cannot be read as one."""


class PackageInvalid(ServingError):
    """What the image of a flow needs is not here, or not locked; nothing was written."""


class OutputNotWritten(ServingError):
    """The folder for generated files holds something else, or cannot be written; it is as it was."""


class DeployFailed(ServingError):
    """A Ray cluster did not take an app, or the app did not start there."""


class PredictorError(ServingError):
    """`status` is HTTP's; `code` names the kind for programs, the message says it to a person."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        code: str = "internal",
        node: str | None = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
        refused: Refused | None = None,
    ) -> None:
        super().__init__(message)
        self.refused = refused
        self.status = status
        self.code = code
        self.node = node
        self.trace_id = trace_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, dict(self.__dict__)


class RequestRefused(PredictorError):
    """The request was not let in, or not allowed to go on."""


class RunFailed(PredictorError):
    """One run of the request has no answer."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def answer_of(error: PredictorError, *, trace_id: str | None = None) -> ErrorAnswer:
    """The response for an error; `trace_id` counts where the error has none of its own."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="agentflow"'
    body = {
        "error": public_sentence(str(error)),
        "code": error.code,
        "node": error.node,
        "trace_id": error.trace_id or trace_id,
        "retry_after": error.retry_after,
    }
    if error.refused is not None:
        body |= asdict(error.refused)
    return ErrorAnswer(status=error.status, body=body, headers=headers)


def run_failed(error: RunError, report: RunReport, *, prefix: str = "") -> RunFailed:
    """The exception for a report without an output. `prefix` says which run of a batch it was."""
    status = STATUS.get(error.code, 500)
    if error.code == "budget_exceeded" and error.retry_after is not None:
        status = 429  # a window that ends
    return RunFailed(
        prefix + error.message,
        status=status,
        code=error.code,
        node=error.node,
        trace_id=report.trace_id,
        retry_after=error.retry_after if error.refused is not None else _retry_after(error.retry_after, status=status),
        refused=error.refused,
    )


def internal_error() -> PredictorError:
    """What a client learns about a defect: that there was one, and (by the trace id) where to look."""
    return PredictorError("The predictor failed on this request; its log has the reason under this trace_id.")


def cancelled_inside() -> PredictorError:
    """For a run that was cancelled although its client still waits: a replica is being stopped."""
    return PredictorError(
        "The run was cancelled inside the server; try again.",
        status=503,
        code="unavailable",
        retry_after=RETRY_AFTER_S,
    )


def _retry_after(seconds: float | None, *, status: int) -> float | None:
    if seconds is not None and math.isfinite(seconds) and seconds >= 0:
        return min(seconds, MAX_RETRY_AFTER_S)
    return RETRY_AFTER_S if status == 503 else None


_TRACEBACK = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SOURCE_LINE = re.compile(r'File "[^"\n]*", line \d+(?:, in \S+)?')
_QUOTED_PATH = re.compile(r"""(['"])(?:/[^/'"\n]+){2,}/?\1""")
_CODE_PATH = re.compile(r"(?<![^\s'\"(=\[,])(?:/[^\s/'\":,(=\[]+)+\.pyc?\b(?::\d+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def public_sentence(text: str) -> str:
    """`text` as a client may see it: one line, of bounded length, without tracebacks and files of the server.

    The message of a failed node is often the text of a library's exception. The form in which Python prints
    files (`'/a/b'`, `/a/b.py:3`) goes; a path in an URL stays.
    """
    text = _TRACEBACK.sub("", _ANSI.sub("", text[: 4 * MAX_SENTENCE]))
    text = _CODE_PATH.sub("<file>", _QUOTED_PATH.sub("<file>", _SOURCE_LINE.sub("<file>", text)))
    text = _CONTROL.sub(" ", text).strip()
    if len(text) > MAX_SENTENCE:
        text = text[: MAX_SENTENCE - 1] + "…"
    return text.encode("utf-8", "replace").decode() or "The run failed and did not say why."
