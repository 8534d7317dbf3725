"""What any-llm is given for a call, and what counts as an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .classify import call_error
from .errors import ProviderBadRequestError, ProviderMalformedError
from .models import ResolvedCall

if TYPE_CHECKING:
    from any_llm import AnyLLM


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


def chat_arguments(call: ResolvedCall, client: AnyLLM, *, stream: bool) -> dict[str, Any]:
    """Keyword arguments for `acompletion` apart from the messages. A stream is asked for token counts."""
    arguments = _without_timeout(call)
    limit = time_limit(call)
    if limit is not None and client.TIMEOUT_SUPPORT != "unsupported":
        arguments["timeout"] = limit
    if stream:
        arguments["stream"] = True
        arguments["stream_options"] = {"include_usage": True, **(arguments.get("stream_options") or {})}
    return {"model": call.model, **arguments}


def embedding_arguments(call: ResolvedCall, client: AnyLLM) -> dict[str, Any]:
    """Keyword arguments for `aembedding` apart from the inputs. `embedding_dim` becomes `dimensions`."""
    arguments = _without_timeout(call)
    limit = time_limit(call)
    # `mapped` timeouts are translated for completions only.
    if limit is not None and client.TIMEOUT_SUPPORT == "native":
        arguments["timeout"] = limit
    size = arguments.pop("embedding_dim", None)
    if size is not None:
        arguments.setdefault("dimensions", size)
    return {"model": call.model, **arguments}


def check_chat_answer(response: Any, call: ResolvedCall) -> None:
    """any-llm lets an answer without choices pass. Raises ProviderMalformedError."""
    choices = getattr(response, "choices", None)
    if not choices:
        raise call_error(ProviderMalformedError, call, detail="the answer has no choices.", code="no_choices")
    if any(getattr(choice, "message", None) is None for choice in choices):
        raise call_error(ProviderMalformedError, call, detail="a choice has no message.", code="no_message")


def check_embedding_answer(response: Any, call: ResolvedCall, inputs: str | Sequence[str]) -> None:
    """One vector for each input. Raises ProviderMalformedError."""
    wanted = 1 if isinstance(inputs, str) else len(inputs)
    got = sum(1 for item in getattr(response, "data", None) or () if item.embedding)
    if got != wanted:
        raise call_error(
            ProviderMalformedError, call, detail=f"{wanted} inputs gave {got} embeddings.", code="wrong_count"
        )


def _without_timeout(call: ResolvedCall) -> dict[str, Any]:
    return {name: value for name, value in call.params.items() if name != "timeout"}
