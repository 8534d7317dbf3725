"""What one would write without this project: the diamond in plain Ray Serve, and kserve's endpoints on Ray Serve.

Replicas import this module: it must not import anything of ours.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

NUM_CPUS = 0.05


class Node:
    async def __call__(self, x: dict[str, Any]) -> dict[str, Any]:
        return {"v": x}


class Diamond:
    """One node, six side by side, one node."""

    def __init__(self, head: DeploymentHandle, branches: list[DeploymentHandle], tail: DeploymentHandle) -> None:
        self.head, self.branches, self.tail = head, branches, tail

    async def __call__(self, request: Request) -> dict[str, Any]:
        [instance] = (await request.json())["instances"]
        head = await self.head.remote(instance["x"])
        done = await asyncio.gather(*(branch.remote(head) for branch in self.branches))
        return {"predictions": [await self.tail.remote(done[0])]}


class Empty:
    """A deployment that does nothing, and says what its process is like."""

    def process(self) -> tuple[int, list[str]]:
        return resident_bytes(), sorted({name.partition(".")[0] for name in sys.modules})


@serve.ingress()
class BarePredictor:
    """kserve's REST endpoints over a model that gives its instances back."""

    def __serve_build_asgi_app__(self) -> Any:
        from fastapi import FastAPI
        from kserve import Model, ModelRepository
        from kserve.protocol.dataplane import DataPlane
        from kserve.protocol.model_repository_extension import ModelRepositoryExtension
        from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
        from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

        class EmptyModel(Model):
            async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
                return {"predictions": payload["instances"]}

        model = EmptyModel("bare")
        model.ready = True
        repository = ModelRepository()
        repository.update(model)
        data_plane = DataPlane(model_registry=repository)
        extension = ModelRepositoryExtension(model_registry=repository)
        app = FastAPI(docs_url=None, redoc_url=None)
        register_v1_endpoints(app, data_plane, extension)
        register_v2_endpoints(app, data_plane, extension)
        return app


def resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def diamond(name: str, branches: int) -> Application:
    """As many deployments as the flow has, with its sizes."""

    def node(number: int) -> Application:
        return _deployment(Node, f"{name}.n{number}", 64).bind()

    inner = [node(number) for number in range(branches + 2)]
    return _deployment(Diamond, name, 1024).bind(inner[0], inner[1:-1], inner[-1])


def empty() -> Application:
    return _deployment(Empty, "empty", 64).bind()


def bare_predictor() -> Application:
    return _deployment(BarePredictor, "bare", 1024).bind()


def _deployment(target: type, name: str, concurrency: int) -> Any:
    make: Any = serve.deployment(name=name, ray_actor_options={"num_cpus": NUM_CPUS}, max_ongoing_requests=concurrency)
    return make(target)
