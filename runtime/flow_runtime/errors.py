"""The errors of running a flow's nodes.

FlowRuntimeError
├── NodeTimeout                 something took longer than it may; failure kind `timeout`
│   ├── CodeTimeout             a code transform
│   └── OperationTimeout        an operation (also an OperationFailed)
├── OutputInvalid               a result does not fit its ports; failure kind `validation_fail`
├── ImageInvalid                an image of a prompt is not a URL that may go to a model
├── ModelFailed                 a model gave no usable answer
├── CallNotAllowed              a budget or a policy refused a call; failure kind `budget_exceeded`, `policy_denied`
├── LedgerUnavailable           the run store does not answer; failure type `unavailable`
├── NodeFailure                 a node has failed for good; only compiled flows raise it
├── SubflowFailed               the run of a subflow failed; its failure kind is that of the node inside
├── StateFailed                 a node's state could not be read or written
├── SessionFailed               what the session remembers could not be read or kept
├── OperationFailed             an operation could not do its work
│   ├── EgressRefused           a request would have gone where this server does not let flows go
│   └── RowNotFound             the feature store has no such row or model; failure type `not_found`
├── FeatureStoreInvalid         the flow needs a feature store, and the one configured cannot be used
├── OperationUnknown            no operation of that name is installed, or it does not load
├── ToolUnknown                 no tool of that name is installed, or it is none that a flow can call
├── CodeFailed                  a code transform raised, returned what is not JSON, or took its process down
└── CodeRefused                 this server does not run that kind of code

Ray pickles errors, so each class takes its message first and keeps its facts as optional keywords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agentflow.ir import FailureType
from runtime_core.errors import AgentflowError

if TYPE_CHECKING:
    from agentflow.failure import Refused


class FlowRuntimeError(AgentflowError):
    """Root of the package."""


class NodeTimeout(FlowRuntimeError):
    """The time was up. `timeout_s` is the limit in seconds where it is known."""

    def __init__(self, message: str, *, timeout_s: float | None = None) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s


class OutputInvalid(FlowRuntimeError):
    """A node produced something that does not fit its output ports or their schemas."""


class ImageInvalid(FlowRuntimeError):
    """A prompt's image cannot be sent. `image` is the placeholder that stands for it."""

    def __init__(self, message: str, *, image: str | None = None) -> None:
        super().__init__(message)
        self.image = image


class ModelFailed(FlowRuntimeError):
    """A model call failed. `model` is the role, or `provider/name`.

    `retry_after` (seconds) is set when the provider's rate limit was the reason.
    """

    def __init__(self, message: str, *, model: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.retry_after = retry_after


class CallNotAllowed(FlowRuntimeError):
    """A call of a model or a tool was not made, because a budget or a policy does not allow it.

    `retry_after` (seconds) is set where waiting helps.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: Literal["budget_exceeded", "policy_denied"] = "budget_exceeded",
        refused: Refused | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: Literal["budget_exceeded", "policy_denied"] = kind
        self.refused = refused
        self.retry_after = retry_after


class LedgerUnavailable(FlowRuntimeError):
    """A model, a tool or a person was not asked: that cannot be recorded, the store is gone or its disk is full."""


class NodeFailure(FlowRuntimeError):
    """A node of a compiled flow failed, after all its `attempts`. Out of its method it goes to its error port.

    `kind` is how it failed; `retry_after` is in seconds; `refused` says what a budget or a policy did not allow.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: FailureType = "error",
        attempts: int = 0,
        retry_after: float | None = None,
        refused: Refused | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: FailureType = kind
        self.attempts = attempts
        self.retry_after = retry_after
        self.refused = refused


class SubflowFailed(FlowRuntimeError):
    """A subflow gave no answer. `node` is its node that failed, `kind` how; `retry_after` is in seconds.

    `refused` says what a budget or a policy did not allow.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: FailureType = "error",
        node: str | None = None,
        retry_after: float | None = None,
        refused: Refused | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: FailureType = kind
        self.node = node
        self.retry_after = retry_after
        self.refused = refused


class StateFailed(FlowRuntimeError):
    """A state bucket could not be used. `key` is the bucket's resolved key."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class SessionFailed(FlowRuntimeError):
    """The store of sessions failed. `session_id` is the session of the run."""

    def __init__(self, message: str, *, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id


class OperationFailed(FlowRuntimeError):
    """An operation failed. `op` names it; `status` is the HTTP status where a server answered one."""

    def __init__(self, message: str, *, op: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.op = op
        self.status = status


class OperationTimeout(OperationFailed, NodeTimeout):
    """An operation took longer than `timeout_s` seconds."""

    def __init__(self, message: str, *, op: str | None = None, timeout_s: float | None = None) -> None:
        super().__init__(message, op=op)
        self.timeout_s = timeout_s


class EgressRefused(OperationFailed):
    """The address is not one that flows may call; `allow_hosts` would have to name `host` and `port`."""

    def __init__(
        self, message: str, *, op: str | None = None, host: str | None = None, port: int | None = None
    ) -> None:
        super().__init__(message, op=op)
        self.host = host
        self.port = port


class RowNotFound(OperationFailed):
    """What was to be read from the feature store is not there."""


class FeatureStoreInvalid(FlowRuntimeError):
    """No feature store is configured, its address is not one, or what it needs is not installed."""


class OperationUnknown(FlowRuntimeError):
    """The flow names an operation that is not there."""

    def __init__(self, message: str, *, op: str | None = None) -> None:
        super().__init__(message)
        self.op = op


class ToolUnknown(FlowRuntimeError):
    """A prompt names an installed tool that is not there, does not load, or needs what no flow can give."""

    def __init__(self, message: str, *, tool: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool


class CodeTimeout(NodeTimeout):
    """A code transform was stopped because its time was up."""


class CodeFailed(FlowRuntimeError):
    """A code transform failed: `error` is the type of what it raised, `line` its line in the code, from 1."""

    def __init__(self, message: str, *, error: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.line = line


class CodeRefused(FlowRuntimeError):
    """The server's `code` setting, `mode`, does not allow this transform."""

    def __init__(self, message: str, *, mode: str | None = None) -> None:
        super().__init__(message)
        self.mode = mode
