"""How an answer is delivered: what, when, how fast, and how it ends. Faults change the plan, nothing else.

Pure: `plan_reply` decides; `delivery` acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from llmhub_runtime.sim.payload import JSON, Frame, Payload, Stamp, Wire, dumps, whole
from llmhub_runtime.sim.request import ModelRequest, Usage
from llmhub_runtime.sim.script import (
    CutStream,
    ErrorStatus,
    Fault,
    Hang,
    Malformed,
    MalformedBody,
    RateLimit,
    Reply,
    Reset,
    SlowLoris,
    StreamError,
)

Ending = Literal["complete", "cut", "abort", "reset", "hang"]

_HTML = "text/html; charset=utf-8"
_HTML_PAGE = b"<!doctype html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
_BROKEN_JSON = b'{"id": "sim", "model": "sim", "choices": [{"index": 0, "mess'


@dataclass(frozen=True, slots=True)
class Plan:
    """`pace_s` is the time the whole text takes, spread over the frames by their size."""

    payload: Payload
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    pace_s: float = 0.0
    bytes_per_second: float | None = None
    ending: Ending = "complete"
    usage: Usage | None = None
    decided: str = field(default="answer")


def plan_error(wire: Wire, status: int, message: str, *, decided: str) -> Plan:
    """The API's own error form."""
    return Plan(whole(JSON, dumps(wire.error(status, message)), tells_usage=False), status=status, decided=decided)


def plan_reply(answer: Callable[[], Plan], reply: Reply, wire: Wire, request: ModelRequest, stamp: Stamp) -> Plan:
    """The plan for a reply; `answer` makes the plan of the faultless one."""
    plan = answer() if reply.fault is None else _with_fault(answer, reply.fault, wire, request, stamp)
    tokens = plan.usage.completion_tokens if plan.usage is not None else 0
    return replace(plan, delay_s=reply.latency_ms / 1000, pace_s=max(0, tokens) * reply.ms_per_token / 1000)


def _with_fault(answer: Callable[[], Plan], fault: Fault, wire: Wire, request: ModelRequest, stamp: Stamp) -> Plan:
    decided = f"fault:{fault.kind}"
    match fault:
        case RateLimit(retry_after=after):
            headers = () if after is None else (("retry-after", str(after)),)
            plan = plan_error(wire, 429, "Rate limit reached (simulated).", decided=decided)
            return replace(plan, headers=headers)
        case ErrorStatus():
            return _error_status(fault, wire, decided)
        case Malformed(body=kind):
            return Plan(_malformed(kind, wire, request, stamp), decided=decided)
        case Reset():
            return Plan(whole(JSON, b"", tells_usage=False), ending="reset", decided=decided)
        case Hang(after_chunks=count):
            return replace(_shortened(answer(), count), ending="hang", decided=decided)
        case CutStream(after_chunks=count, how=how):
            return replace(_shortened(answer(), count), ending="cut" if how == "clean" else "abort", decided=decided)
        case StreamError(after_chunks=count, message=message):
            return replace(_failing(answer(), count, message, wire, request), decided=decided)
        case SlowLoris(bytes_per_second=rate):
            return replace(answer(), bytes_per_second=rate, decided=decided)
        case _:
            assert_never(fault)


def _error_status(fault: ErrorStatus, wire: Wire, decided: str) -> Plan:
    headers = tuple(fault.headers.items())
    if fault.body is None:
        plan = plan_error(wire, fault.status, f"Simulated failure {fault.status}.", decided=decided)
        return replace(plan, headers=headers)
    if isinstance(fault.body, str):
        payload = whole("text/plain; charset=utf-8", fault.body.encode(), tells_usage=False)
    else:
        payload = whole(JSON, dumps(fault.body), tells_usage=False)
    return Plan(payload, status=fault.status, headers=headers, decided=decided)


def _malformed(kind: MalformedBody, wire: Wire, request: ModelRequest, stamp: Stamp) -> Payload:
    if kind == "html":
        return whole(_HTML, _HTML_PAGE, tells_usage=False)
    data = _BROKEN_JSON if kind == "bad_json" else dumps(wire.twisted(request, kind, stamp))
    content_type = wire.stream_type if request.stream else JSON
    return Payload(content_type, (wire.frame(request, data),), streamed=request.stream, tells_usage=False)


def _shortened(plan: Plan, count: int) -> Plan:
    """The first `count` frames without the end; of an answer in one piece, the first half."""
    payload = plan.payload
    if payload.streamed:
        frames = payload.frames[:count]
    else:
        [frame] = payload.frames
        frames = (Frame(frame.data[: len(frame.data) // 2], frame.text_bytes // 2),) if count else ()
    return replace(plan, payload=replace(payload, frames=frames, tail=(), tells_usage=False))


def _failing(plan: Plan, count: int, message: str, wire: Wire, request: ModelRequest) -> Plan:
    error = wire.frame(request, dumps(wire.error(500, message)))
    kept = plan.payload.frames[:count] if plan.payload.streamed else ()
    return replace(plan, payload=replace(plan.payload, frames=kept, tail=(error,), tells_usage=False))
