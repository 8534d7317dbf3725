"""The /sim endpoints: health, the script, the log."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from llmhub_runtime.sim.director import Director
from llmhub_runtime.sim.errors import SimBadRequest, SimScriptError
from llmhub_runtime.sim.exchange import HttpRequest
from llmhub_runtime.sim.log import RequestLog
from llmhub_runtime.sim.payload import FINGERPRINT, JSON, dumps, whole
from llmhub_runtime.sim.plan import Plan
from llmhub_runtime.sim.script import Script, parse_script
from llmhub_runtime.sim.strict_json import parse_json

_DIGITS = re.compile(r"[0-9]{1,15}")


def answer_control(
    request: HttpRequest, query: str, director: Director, log: RequestLog, *, read_only: bool = False
) -> Plan:
    """The answer to one control call; takes effect at once. `read_only` refuses those that would change something."""
    try:
        if read_only and request.method not in ("GET", "HEAD"):
            raise SimBadRequest("This simulated model takes no orders over the network.", status=403)
        return _plan(200, _act(request, query, director, log))
    except SimBadRequest as exc:
        return _plan(exc.status, {"error": str(exc)})
    except SimScriptError as exc:
        return _plan(422, {"error": str(exc)})


def _act(request: HttpRequest, query: str, director: Director, log: RequestLog) -> Any:
    match request.method, request.path:
        case "GET", "/sim/health":
            return {"status": "ok", "server": FINGERPRINT, "requests": log.last_seq}
        case "GET", "/sim/script":
            return _script(director)
        case "PUT", "/sim/script":
            director.replace(_read_script(request.body))
            return _script(director)
        case "DELETE", "/sim/script":
            director.replace(Script())
            return _script(director)
        case "GET", "/sim/log":
            return [entry.model_dump(mode="json") for entry in log.entries(since=_since(query))]
        case "DELETE", "/sim/log":
            log.clear()
            return {"status": "ok"}
        case method, path:
            raise SimBadRequest(f"The simulated model has no {method} {path}.", status=404)


def _script(director: Director) -> dict[str, Any]:
    return {"script": director.script.model_dump(mode="json"), "applied": director.applied}


def _read_script(body: bytes) -> Script:
    try:
        return parse_script(parse_json(body))
    except ValueError as exc:
        raise SimBadRequest(f"The script is not JSON: {exc}.") from exc


def _since(query: str) -> int:
    given = parse_qs(query).get("since", ["0"])[-1]
    if not _DIGITS.fullmatch(given):
        raise SimBadRequest("'since' must be a sequence number.")
    return int(given)


def _plan(status: int, value: Any) -> Plan:
    return Plan(whole(JSON, dumps(value), tells_usage=False), status=status)
