"""Calls of http operations as a flow makes them."""

from __future__ import annotations

from typing import Any

from agentflow.ir import OperationSpec
from flow_runtime.operations import OperationCall, OperationResources, OperationSettings, bind_operation
from flow_runtime.operations.resources import Resolver, resolve_by_system
from support.http_stub import Stub


async def fetch(
    args: dict[str, Any],
    *,
    op: str = "http.get",
    resolve: Resolver = resolve_by_system,
    deadline_s: float | None = None,
    **settings: Any,
) -> Any:
    resources = OperationResources(resolve=resolve)
    spec = OperationSpec(op=op, args=args)
    bound = bind_operation(spec, names={"context"}, settings=OperationSettings(**settings), resources=resources)
    try:
        return await bound.run({"context": {}}, OperationCall("n", {}, deadline_s))
    finally:
        await resources.aclose()


async def ask(stub: Stub, *, op: str = "http.get", path: str = "/", **settings: Any) -> Any:
    """Fetch from a stub that the server's configuration names."""
    args = {"url": f"http://127.0.0.1:{stub.port}{path}", **settings.pop("args", {})}
    return await fetch(args, op=op, allow_hosts=(f"127.0.0.1:{stub.port}",), **settings)


def always(*addresses: str) -> Resolver:
    async def resolve(host: str, port: int) -> tuple[str, ...]:
        return addresses

    return resolve
