"""What any-llm is given for a call, and what counts as an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .classify import call_error
from .errors import ProviderBadRequestError, ProviderCallError, ProviderMalformedError
from .models import ResolvedCall

if TYPE_CHECKING:
    from any_llm import AnyLLM

_PLACEHOLDER = {"role": "user", "content": "-"}


def time_limit(call: ResolvedCall) -> float | None:
    """Seconds: the parameter `timeout`, else the role's `timeout_s`."""
    limit: Any = call.params.get("timeout")
    if limit is None:
        return call.timeout_s
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not 0 < limit < math.inf:
        raise call_error(
            ProviderBadRequestError,
            call,
            detail="the parameter timeout must be a positive number of seconds.",
        )
    return float(limit)


def chat_arguments(
    call: ResolvedCall, client: AnyLLM, messages: Sequence[Any], *, stream: bool, fast_messages: bool
) -> dict[str, Any]:
    """Keyword arguments for `acompletion`. A stream is asked for its token counts.

    The openai SDK spends about 0.3 ms of CPU on every message. With `fast_messages` they go in its
    `extra_body`, which it merges into the request as it is: the same request on the wire, and a call with 100
    messages in a seventh of the time.
    """
    arguments = _without_timeout(call)
    sent = [dict(message) if isinstance(message, Mapping) else message for message in messages]
    if fast_messages and _may_bypass_sdk(sent, client, arguments):
        arguments["extra_body"] = {**(arguments.get("extra_body") or {}), "messages": sent}
        sent = [_PLACEHOLDER]
    limit = time_limit(call)
    if limit is not None and client.TIMEOUT_SUPPORT != "unsupported":
        arguments["timeout"] = limit
    if stream:
        arguments["stream"] = True
        arguments["stream_options"] = {"include_usage": True, **(arguments.get("stream_options") or {})}
    return {"model": call.model, "messages": sent, **arguments}


def embedding_arguments(call: ResolvedCall, client: AnyLLM, inputs: str | Sequence[str]) -> dict[str, Any]:
    """Keyword arguments for `aembedding`. The parameter `embedding_dim` becomes `dimensions`."""
    arguments = _without_timeout(call)
    limit = time_limit(call)
    # `mapped` timeouts are translated for completions only.
    if limit is not None and client.TIMEOUT_SUPPORT == "native":
        arguments["timeout"] = limit
    size = arguments.pop("embedding_dim", None)
    if size is not None:
        arguments.setdefault("dimensions", size)
    sent = inputs if isinstance(inputs, str) else list(inputs)
    return {"model": call.model, "inputs": sent, **arguments}


def with_headers(arguments: dict[str, Any], client: AnyLLM, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """`arguments` with these headers of the request, where the SDK under `client` takes any.

    That is the openai and the anthropic family; to the others the request goes without them.
    """
    if headers and _takes_headers(type(client)):
        arguments["extra_headers"] = {**headers, **(arguments.get("extra_headers") or {})}
    return arguments


@cache
def _takes_headers(kind: type[AnyLLM]) -> bool:
    from any_llm.providers.openai.base import BaseOpenAIProvider

    return issubclass(kind, BaseOpenAIProvider) or any(cls.__name__ == "BaseAnthropicProvider" for cls in kind.__mro__)


def check_chat_answer(response: Any, call: ResolvedCall) -> None:
    """any-llm lets an answer without choices pass. Raises ProviderMalformedError."""
    choices = getattr(response, "choices", None)
    if not choices:
        raise malformed_answer(response, call, detail="the answer has no choices.", code="no_choices")
    if any(getattr(choice, "message", None) is None for choice in choices):
        raise malformed_answer(response, call, detail="a choice has no message.", code="no_message")


def malformed_answer(response: Any, call: ResolvedCall, *, detail: str, code: str) -> ProviderCallError:
    """The error for a readable response that is no answer. It may still say what it cost, as any-llm has it."""
    error = call_error(ProviderMalformedError, call, detail=detail, code=code)
    error.usage = getattr(response, "usage", None)
    return error


def check_embedding_answer(response: Any, call: ResolvedCall, inputs: str | Sequence[str]) -> None:
    """One vector for each input. Raises ProviderMalformedError."""
    wanted = 1 if isinstance(inputs, str) else len(inputs)
    got = sum(1 for item in getattr(response, "data", None) or () if item.embedding)
    if got != wanted:
        raise call_error(
            ProviderMalformedError, call, detail=f"{wanted} inputs gave {got} embeddings.", code="wrong_count"
        )


def _may_bypass_sdk(messages: list[Any], client: AnyLLM, arguments: Mapping[str, Any]) -> bool:
    """Only where any-llm and the SDK would leave every message as it is."""
    return (
        _is_plain(type(client))
        and bool(messages)
        and all(isinstance(message, dict) and "extra_content" not in message for message in messages)
        and "messages" not in (arguments.get("extra_body") or {})
        and not isinstance(arguments.get("response_format"), type)
    )


@cache
def _is_plain(kind: type[AnyLLM]) -> bool:
    """Whether its requests are those of any-llm's OpenAI class."""
    from any_llm.providers.openai.base import BaseOpenAIProvider as Plain

    return (
        issubclass(kind, Plain)
        and kind._acompletion is Plain._acompletion
        and kind._convert_completion_params is Plain._convert_completion_params
    )


def _without_timeout(call: ResolvedCall) -> dict[str, Any]:
    return {name: value for name, value in call.params.items() if name != "timeout"}
