"""When are two requests the same? When their canonical forms are: the name of a request is the hash of that form.

The model and the role's own parameters belong to it, the role's name does not. The order of keys, values of null
and what every provider does by default anyway do not matter; neither does how long somebody is ready to wait.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import orjson

from llm_client.providers.protocol import Target
from llm_client.spec import EmbeddingSpec, RequestSpec

_NOT_THE_REQUEST = frozenset({"timeout", "extra_headers"})
_DEFAULTS: dict[str, Any] = {"n": 1, "stream": False, "tool_choice": "auto"}


def request_hash(target: Target, request: RequestSpec | EmbeddingSpec) -> str:
    """SHA-256, in hex, of what `target` is asked."""
    return hashlib.sha256(_dumps(_canonical(target, request))).hexdigest()


def _canonical(target: Target, request: RequestSpec | EmbeddingSpec) -> dict[str, Any]:
    params = {**target.params, **request.params}
    form: dict[str, Any] = {"provider": target.provider, "model": target.model}
    form["params"] = _without_defaults(params) if params else params
    if isinstance(request, EmbeddingSpec):
        return form | {"kind": "embedding", "inputs": request.inputs}
    form["kind"] = "chat"
    form["messages"] = [
        _without_nulls(message) if None in message.values() else message for message in request.messages
    ]
    if request.tools:
        form["tools"] = request.tools
    if request.tool_choice is not None and request.tool_choice != "auto":
        form["tool_choice"] = request.tool_choice
    return form


def _without_nulls(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


def _without_defaults(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in params.items()
        if value is not None and name not in _NOT_THE_REQUEST and (name not in _DEFAULTS or value != _DEFAULTS[name])
    }


def _dumps(form: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits, or half of a surrogate pair
        return json.dumps(form, sort_keys=True, default=str).encode()
