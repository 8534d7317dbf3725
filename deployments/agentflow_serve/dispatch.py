"""From who calls a node to the node: a handle call where it has its own deployment, a plain call where not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from agentflow.failure import Failure
from agentflow_serve.wire import call_to_wire, outcome_from_wire
from flow_runtime.call import NodeCall
from flow_runtime.dispatch import LocalDispatch
from runtime_core.errors import DispatchRefusedError, NodeLostError
from runtime_core.outcome import NodeOutcome

RETRY_AFTER_S = 1.0


class ServeDispatch:
    """Dispatches to Serve deployments by handle; `inline` takes the nodes that `handles` does not name."""

    def __init__(self, handles: Mapping[str, DeploymentHandle], inline: LocalDispatch) -> None:
        self._handles = handles
        self._inline = inline

    async def call(self, node: str, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        handle = self._handles.get(node)
        if handle is None:
            return await self._inline.call(node, inputs, call)
        response = handle.remote(call_to_wire(inputs, call))
        try:
            return outcome_from_wire(await response)
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError as exc:
            raise DispatchRefusedError("its queue is full", code="overloaded", retry_after=RETRY_AFTER_S) from exc
        except DeploymentUnavailableError as exc:
            message = "its deployment is not available"
            raise DispatchRefusedError(message, code="unavailable", retry_after=RETRY_AFTER_S) from exc
        except (RayActorError, TaskCancelledError, RequestCancelledError) as exc:
            raise NodeLostError("the process that ran it died", node=node) from exc
        except RayTaskError as exc:
            return NodeOutcome(failure=Failure(reason=_sentence(exc), kind="error", attempts=1))


def _sentence(error: RayTaskError) -> str:
    cause = error.cause if isinstance(error.cause, BaseException) else error
    first_line = next((line for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {first_line}"[:500]
