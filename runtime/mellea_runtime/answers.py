"""What an engine's answer is to mellea: a response in OpenAI's form, which mellea parses messages and tools out of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mellea.helpers.openai_compatible_helpers import extract_model_tool_requests

from llm_client.results import CompletionResult
from mellea_runtime.internals import SharedThunk


def fill(thunk: SharedThunk, result: CompletionResult, tools: Mapping[str, Any]) -> dict[str, Any]:
    """Sets what a thunk says of its answer beyond the text. `tools` are those that the model was offered."""
    usage = {
        "prompt_tokens": result.usage.input,
        "completion_tokens": result.usage.output,
        "total_tokens": result.usage.input + result.usage.output,
    }
    choice = {"index": 0, "finish_reason": result.finish_reason, "message": result.message()}
    response = {"id": result.attempt_id, "model": result.model, "choices": [choice], "usage": usage}
    generation = thunk.generation
    generation.usage = usage
    generation.model = generation.response_model = result.model
    generation.provider = result.provider
    generation.finish_reasons = [result.finish_reason]
    generation.response_id = result.attempt_id
    thunk.raw.provider = "openai"  # the shape of the response, which is all that mellea reads it for
    thunk.raw.response = response
    if result.tool_calls:
        thunk.tool_calls = extract_model_tool_requests(dict(tools), choice)
    return response
