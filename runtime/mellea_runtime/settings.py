"""Where a runtime's settings come from: the call, then the constructor, then the environment (adapter document)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mellea_runtime.errors import RuntimeSettingsInvalid

RUN_ID = "MELLEA_RUN_ID"
BACKEND = "MELLEA_BACKEND"
MODEL_ID = "MELLEA_MODEL_ID"
MODEL_OPTIONS = "MELLEA_MODEL_OPTIONS"

ROLE_BACKEND = "role"
DEFAULT_BACKEND = "ollama"
OWN_BACKENDS = ("ollama", "openai", "watsonx", "hf", "litellm")
"""mellea's own: they call their models themselves, past every engine."""
_ALSO = {"huggingface": "hf"}


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """`backend` is one of OWN_BACKENDS, or `role` for models behind an engine."""

    backend: str
    model_id: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    run_id: str | None = None


def read_settings(
    environ: Mapping[str, str],
    *,
    backend: str | None = None,
    model_id: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    has_engine: bool = False,
) -> RuntimeSettings:
    """An empty variable counts as absent. Raises RuntimeSettingsInvalid; nothing falls back silently."""
    named = backend or environ.get(BACKEND) or (ROLE_BACKEND if has_engine else DEFAULT_BACKEND)
    chosen = _ALSO.get(named, named)
    if chosen not in (ROLE_BACKEND, *OWN_BACKENDS):
        known = ", ".join((ROLE_BACKEND, *OWN_BACKENDS))
        raise RuntimeSettingsInvalid(f"there is no backend '{named}'; the backends are: {known}", setting="backend")
    return RuntimeSettings(
        backend=chosen,
        model_id=model_id or environ.get(MODEL_ID) or None,
        model_options=dict(model_options) if model_options is not None else _options(environ.get(MODEL_OPTIONS)),
        run_id=run_id or environ.get(RUN_ID) or None,
    )


def _options(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        options = json.loads(text)
    except ValueError as exc:
        message = f"{MODEL_OPTIONS} is not JSON: {exc}"
        raise RuntimeSettingsInvalid(message, setting=MODEL_OPTIONS) from exc
    if not isinstance(options, dict):
        raise RuntimeSettingsInvalid(f"{MODEL_OPTIONS} must be a JSON object", setting=MODEL_OPTIONS)
    return cast("dict[str, Any]", options)
