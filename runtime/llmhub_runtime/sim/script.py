"""The script: which request gets which reply, and which fault.

A script is data (YAML, JSON or these models). Its rules are tried in order and the first one that
applies decides; a request that no rule takes gets the default answer.

    rules:
      - match: {role: llm.draft, times: 1}
        reply: {fault: {kind: rate_limit, retry_after: 2}}
      - match: {model: "gpt-*", contains: refund}
        reply: {answer: {text: "Approved.", confidence: 0.9}, ms_per_token: 5}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from llmhub_runtime.sim.errors import SimScriptError

MalformedBody = Literal["bad_json", "html", "empty_choices", "null_content", "wrong_types"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RateLimit(_Frozen):
    """Answer 429. `retry_after` is sent as it is: seconds, an HTTP date, or not at all."""

    kind: Literal["rate_limit"] = "rate_limit"
    retry_after: int | float | str | None = None


class ErrorStatus(_Frozen):
    """Answer `status`. Without a `body` the API's own error form is sent; a text is sent as plain text."""

    kind: Literal["error"] = "error"
    status: int = Field(default=500, ge=400, le=599)
    body: JsonValue = None
    headers: dict[str, str] = {}


class CutStream(_Frozen):
    """Send `after_chunks` pieces of text and stop, with neither finish reason nor end marker.

    `how: clean` ends the HTTP body properly, `how: abort` drops the connection inside the body.
    An answer that is not streamed loses its second half.
    """

    kind: Literal["cut_stream"] = "cut_stream"
    after_chunks: int = Field(default=1, ge=0)
    how: Literal["clean", "abort"] = "clean"


class Malformed(_Frozen):
    """Answer 200 with a body that is not what the API promises."""

    kind: Literal["malformed"] = "malformed"
    body: MalformedBody = "bad_json"


class Hang(_Frozen):
    """Accept the request and never finish; with `after_chunks` the answer begins and then stalls."""

    kind: Literal["hang"] = "hang"
    after_chunks: int = Field(default=0, ge=0)


class Reset(_Frozen):
    """Close the socket with a TCP reset and without an answer."""

    kind: Literal["reset"] = "reset"


class SlowLoris(_Frozen):
    """Send the right answer, dripping."""

    kind: Literal["slow_loris"] = "slow_loris"
    bytes_per_second: float = Field(default=1.0, gt=0)


class StreamError(_Frozen):
    """Send `after_chunks` pieces and then an error event inside the stream."""

    kind: Literal["stream_error"] = "stream_error"
    after_chunks: int = Field(default=1, ge=0)
    message: str = "The simulated model failed while it was answering."


Fault = Annotated[
    RateLimit | ErrorStatus | CutStream | Malformed | Hang | Reset | SlowLoris | StreamError,
    Field(discriminator="kind"),
]


class ScriptedToolCall(_Frozen):
    """A tool call to send. `arguments` as a text is sent unchanged, valid JSON or not."""

    name: str
    arguments: dict[str, JsonValue] | str = {}
    id: str | None = None


class UsageOverride(_Frozen):
    """Token counts to report instead of the true ones; any integer, also a senseless one."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Match(_Frozen):
    """What a request must be for the rule to apply; everything given must hold.

    `role` and `model` are glob patterns (`gpt-*`). `contains` is a substring of any message.
    `last_role` is the role of the last message (`tool` after a tool result). Header names ignore case.
    `times: N` applies to the first N such requests, `nth: N` to the Nth only; others fall through.
    """

    kind: Literal["chat", "embedding"] | None = None
    role: str | None = None
    model: str | None = None
    contains: str | None = None
    last_role: str | None = None
    headers: dict[str, str] = {}
    times: int | None = Field(default=None, ge=1)
    nth: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_counter(self) -> Self:
        if self.times is not None and self.nth is not None:
            raise ValueError("give times or nth, not both")
        return self


class Reply(_Frozen):
    """What the request gets. Without `answer`, `answers` or `tool_calls` it is the default answer.

    Exact answers are sent as they are: neither `max_tokens` nor `stop` shortens them. A value that is
    not a text is sent as JSON. `answers` are used in turn; then the last one stays, or, with `cycle`, they
    start again; a null among them is the default answer. Times are milliseconds; `ms_per_token` spreads over
    the reported completion tokens.
    """

    answer: JsonValue = None
    answers: tuple[JsonValue, ...] = ()
    cycle: bool = False
    tool_calls: tuple[ScriptedToolCall, ...] = ()
    finish_reason: str | None = None
    latency_ms: float = Field(default=0.0, ge=0)
    ms_per_token: float = Field(default=0.0, ge=0)
    usage: UsageOverride | Literal["missing"] | None = None
    fault: Fault | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if self.answer is not None and self.answers:
            raise ValueError("give answer or answers, not both")
        return self


class Rule(_Frozen):
    match: Match = Match()
    reply: Reply = Reply()


class Script(_Frozen):
    """All rules, and the model names the model list shows (every other name is answered too)."""

    rules: tuple[Rule, ...] = ()
    models: tuple[str, ...] = ("sim", "sim-embed")


def parse_script(document: Any, *, source: str | None = None) -> Script:
    """Validate plain data into a script. Raises SimScriptError."""
    if isinstance(document, Script):
        return document
    try:
        return Script.model_validate({} if document is None else document)
    except ValidationError as exc:
        raise SimScriptError(
            f"{source or 'The script'} is not a valid script: {_sentence(exc)}", source=source
        ) from exc


def load_script(path: str | Path) -> Script:
    """Read a YAML or JSON script file. Raises SimScriptError."""
    import yaml

    source = str(path)
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise SimScriptError(f"Cannot read the script {source}: {exc.strerror}.", source=source) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise SimScriptError(f"{source} is neither YAML nor JSON: {exc}", source=source) from exc
    return parse_script(document, source=source)


def _sentence(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'script'}: {item['msg']}" for item in error.errors())
