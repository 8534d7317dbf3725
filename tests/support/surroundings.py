"""What flows under test reach outside: a simulated model with a script, and a small HTTP server, both on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from agentflow import Flow, from_mapping
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.report import RunReport
from support.http_stub import Request, answer, http_stub
from support.table import Case

STUB = "http://stub"
"""What flows write for the HTTP server, whose port is another one each time."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`stub` is where the HTTP server is."""

    sim: SimServer
    stub: str

    @property
    def allow_hosts(self) -> tuple[str, ...]:
        return (self.stub.removeprefix("http://"),)

    @property
    def llmhub(self) -> dict[str, Any]:
        roles = {role: {"provider": "sim", "model": role, "mode": "chat"} for role in ("writer", "spare")}
        providers = {"sim": {"api_base": self.sim.openai_base}}
        return {"project": "tests", "env": "test", "providers": providers, "roles": roles}

    def document(self, case: Case) -> dict[str, Any]:
        """The flow file of an entry, with the true address of the HTTP server."""
        return json.loads(json.dumps(case.document).replace(STUB, self.stub))

    def flow(self, case: Case) -> Flow:
        return from_mapping(self.document(case)).flow

    def prepare(self, case: Case) -> None:
        """Let the simulated model say what the entry wants it to, from the beginning."""
        self.sim.set_script(parse_script({"rules": case.rules}))

    def plain(self, report: RunReport) -> RunReport:
        """The report with the HTTP server's address as flows write it."""
        return replace(report, output=json.loads(json.dumps(report.output).replace(self.stub, STUB)))


@asynccontextmanager
async def surroundings() -> AsyncIterator[Surroundings]:
    async with SimServer() as sim, http_stub(_respond) as stub:
        yield Surroundings(sim, f"http://127.0.0.1:{stub.port}")


async def _respond(request: Request, writer: asyncio.StreamWriter) -> None:
    method, path, _ = request.line.split()
    writer.write(_answer(method, path, request))
    await writer.drain()


def _answer(method: str, path: str, request: Request) -> bytes:
    match path.strip("/").split("/"):
        case ["json"]:
            return _json([1, {"a": None}, "é"])
        case ["text"]:
            return answer("plain é".encode(), content_type="text/plain; charset=utf-8")
        case ["nothing"]:
            return answer()
        case ["status", status]:
            return answer(b"{}", status=f"{status} Told So", content_type="application/json")
        case ["echo"]:
            return _json(_seen(method, request.headers, request.body))
        case _:
            return answer(status="404 Not Found")


def _seen(method: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    return {
        "method": method,
        "kind": headers.get("x-kind"),
        "type": headers.get("content-type"),
        "body": json.loads(body),
    }


def _json(value: Any) -> bytes:
    return answer(json.dumps(value).encode(), content_type="application/json")
