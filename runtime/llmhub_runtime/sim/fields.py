"""Reading fields of a request body; every failure is a SimBadRequest that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmhub_runtime.sim.embeddings import DEFAULT_DIMENSIONS, MAX_DIMENSIONS
from llmhub_runtime.sim.errors import SimBadRequest
from llmhub_runtime.sim.request import ToolOffer, Turn


def text_of(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise SimBadRequest(f"'{name}' must be a text that is not empty.", param=name)
    return value


def integer_of(body: Mapping[str, Any], name: str, *, least: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        at_least = "" if least is None else f" of at least {least}"
        raise SimBadRequest(f"'{name}' must be a whole number{at_least}.", param=name)
    return value


def flag_of(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise SimBadRequest(f"'{name}' must be true or false.", param=name)
    return value


def object_of(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SimBadRequest(f"'{name}' must be an object.", param=name)
    return value


def stops_of(body: Mapping[str, Any], name: str = "stop") -> tuple[str, ...]:
    value = body.get(name)
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise SimBadRequest(f"'{name}' must be a text or a list of texts.", param=name)
    return tuple(stop for stop in stops if stop)


def turns_of(messages: Any) -> tuple[Turn, ...]:
    if not isinstance(messages, list) or not messages:
        raise SimBadRequest("'messages' must be a list with at least one message.", param="messages")
    return tuple(_turn(message, index) for index, message in enumerate(messages))


def _turn(message: Any, index: int) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise SimBadRequest(f"messages[{index}] must be an object with a 'role'.", param=f"messages[{index}]")
    content = message.get("content")
    if content is None:
        content = ""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        content = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise SimBadRequest(f"messages[{index}].content must be a text or a list of parts.", param="messages")
    return Turn(role=message["role"], text=content)


def tools_of(body: Mapping[str, Any]) -> tuple[ToolOffer, ...]:
    tools = body.get("tools")
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise SimBadRequest("'tools' must be a list.", param="tools")
    return tuple(_tool(tool, index) for index, tool in enumerate(tools))


def _tool(tool: Any, index: int) -> ToolOffer:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise SimBadRequest(f"tools[{index}] must be a function with a name.", param=f"tools[{index}]")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise SimBadRequest(f"tools[{index}].function.parameters must be a JSON Schema.", param=f"tools[{index}]")
    return ToolOffer(name=function["name"], parameters=parameters or {"type": "object"})


def dimensions_of(body: Mapping[str, Any]) -> int:
    wanted = integer_of(body, "dimensions", least=1)
    if wanted is None:
        return DEFAULT_DIMENSIONS
    if wanted > MAX_DIMENSIONS:
        raise SimBadRequest(f"'dimensions' must be at most {MAX_DIMENSIONS}.", param="dimensions")
    return wanted


def inputs_of(body: Mapping[str, Any], name: str = "input") -> tuple[str, ...]:
    """One text, a list of texts, or token numbers (taken as words)."""
    value = body.get(name)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return tuple(value)
        if all(isinstance(item, int) for item in value):
            return (_tokens_as_text(value),)
        if all(isinstance(item, list) for item in value):
            return tuple(_tokens_as_text(item) for item in value)
    raise SimBadRequest(f"'{name}' must be a text or a list of texts.", param=name)


def _tokens_as_text(tokens: list[Any]) -> str:
    return " ".join(map(str, tokens))
