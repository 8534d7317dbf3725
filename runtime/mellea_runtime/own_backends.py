"""mellea's own backends, for programs outside a served flow: there every model call passes the engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mellea.core import Backend
from mellea.stdlib.start_backend import backend_name_to_class

from llmhub_runtime.errors import UnmeteredCallError
from llmhub_runtime.names import SERVED_FLOW
from mellea_runtime.errors import RuntimeSettingsInvalid
from mellea_runtime.options import named_options


def own_backend(name: str, model_id: str | None, options: Mapping[str, Any]) -> Backend:
    """One of OWN_BACKENDS with its model, or with the default of the backend.

    Raises UnmeteredCallError inside a served flow, RuntimeSettingsInvalid when an extra or a server is missing.
    """
    if flow := os.environ.get(SERVED_FLOW):
        message = f"mellea's backend '{name}' would call a model past the engine of '{flow}'; use backend='role'"
        raise UnmeteredCallError(message, flow=flow)
    given = {"model_id": model_id} if model_id else {}
    try:
        # not start_session, which forgets the model id of some backends
        return backend_name_to_class(name)(**given, model_options=named_options(options))
    except ImportError as exc:
        message = f"the backend '{name}' needs an extra: pip install 'mellea[{name}]' ({exc})"
        raise RuntimeSettingsInvalid(message, setting="backend") from exc
    except (OSError, ValueError) as exc:
        raise RuntimeSettingsInvalid(f"the backend '{name}' does not start: {exc}", setting="backend") from exc
