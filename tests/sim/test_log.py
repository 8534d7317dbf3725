"""The log: written before the answer, completed after it, and no place for secrets."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhub_runtime.sim import SimServer, SimStartError, parse_script, read_log_file
from llmhub_runtime.sim.log import Received, RequestLog
from support.waiting import until

MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
BODY: dict[str, Any] = {"model": "m", "messages": MESSAGES}
HANG = parse_script({"rules": [{"reply": {"fault": {"kind": "hang"}}}]})


async def test_a_request_is_in_the_log_and_in_the_file_before_it_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "sim.jsonl"
    async with SimServer(script=HANG, log_path=path) as sim, httpx.AsyncClient(trust_env=False) as http:
        call = asyncio.create_task(http.post(f"{sim.openai_base}/chat/completions", json=BODY, timeout=60))
        await until(sim.log, what="the request")
        assert (sim.log()[0].outcome, sim.log()[0].status) == ("open", None)
        assert read_log_file(path) == sim.log()
        call.cancel()
        await until(lambda: sim.log()[0].outcome == "client_disconnected")
        assert read_log_file(path) == sim.log()


async def test_an_entry_tells_everything_about_its_request(http: httpx.AsyncClient, sim: SimServer) -> None:
    headers = {"x-attempt-id": "a-1", "x-agentflow-role": "llm.draft", "X-Trace": "t", "authorization": "Bearer s3cret"}
    await http.post("/v1/chat/completions", json=BODY, headers=headers | {"x-api-key": "s3cret"})
    [entry] = sim.log()
    assert (entry.seq, entry.method, entry.path, entry.kind) == (1, "POST", "/v1/chat/completions", "chat")
    assert (entry.model, entry.role, entry.attempt_id, entry.stream) == ("m", "llm.draft", "a-1", False)
    assert entry.headers["x-trace"] == "t"
    assert entry.request == BODY
    canonical = json.dumps(MESSAGES, sort_keys=True, separators=(",", ":"))
    assert entry.messages_hash == hashlib.sha256(canonical.encode()).hexdigest()
    assert (entry.decided, entry.rule, entry.status, entry.outcome) == ("text", None, 200, "finished")
    assert entry.usage is not None
    assert entry.usage.prompt_tokens == entry.prompt_tokens == 5
    assert entry.usage.completion_tokens == entry.completion_tokens_sent
    assert (entry.duration_ms or 0) > 0
    assert "s3cret" not in entry.model_dump_json()


async def test_every_answer_names_its_entry(http: httpx.AsyncClient, sim: SimServer) -> None:
    answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=BODY) for _ in range(20)))
    assert {int(answer.headers["x-agentflow-sim-seq"]) for answer in answers} == {entry.seq for entry in sim.log()}


async def test_the_sum_of_a_hundred_calls_is_the_logs_own_count(http: httpx.AsyncClient, sim: SimServer) -> None:
    sim.set_script(parse_script({"rules": [{"match": {"contains": "7"}, "reply": {"fault": {"kind": "error"}}}]}))

    async def ask(number: int) -> int:
        message = {"role": "user", "content": f"question {number}"}
        answer = await http.post("/v1/chat/completions", json={"model": "m", "messages": [message]})
        return answer.json()["usage"]["total_tokens"] if answer.status_code == 200 else 0

    told = sum(await asyncio.gather(*(ask(number) for number in range(100))))
    logged = [entry.usage for entry in sim.log() if entry.usage]
    assert told == sum(usage.prompt_tokens + usage.completion_tokens for usage in logged)
    assert (len(sim.log()), len(logged)) == (100, 81)


async def test_the_log_is_read_from_a_sequence_number_on(http: httpx.AsyncClient, sim: SimServer) -> None:
    for _ in range(3):
        await http.post("/v1/chat/completions", json=BODY)
    assert [entry["seq"] for entry in (await http.get("/sim/log", params={"since": 1})).json()] == [2, 3]
    assert (await http.get("/sim/log?since=x")).status_code == 400
    await http.delete("/sim/log")
    assert (await http.get("/sim/log")).json() == []
    await http.post("/v1/chat/completions", json=BODY)
    assert [entry["seq"] for entry in (await http.get("/sim/log")).json()] == [4]


async def test_a_body_that_is_not_json_is_kept_as_text(http: httpx.AsyncClient, sim: SimServer) -> None:
    await http.post("/v1/chat/completions", content=b'{"x": "\\ud800" \xff')
    [entry] = (await http.get("/sim/log")).json()
    assert entry["request"].startswith('{"x": "\\ud800"')


def _received(seq: int) -> Received:
    return Received(seq=seq, time=0.0, method="POST", path="/", headers={}, body=b"{}")


def test_memory_keeps_the_newest_entries_only() -> None:
    log = RequestLog(limit=3)
    for _ in range(5):
        log.open(_received(log.next_seq()))
    assert [entry.seq for entry in log.entries()] == [3, 4, 5]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sim.jsonl"
    log = RequestLog(path=path)
    log.finish(log.open(_received(1)), duration_ms=1.0)
    log.close()
    path.write_bytes(path.read_bytes() + b'{"event": "requ')
    [entry] = read_log_file(path)
    assert entry.duration_ms == 1.0


def test_a_second_run_appends_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sim.jsonl"
    for duration in (1.0, 2.0):
        log = RequestLog(path=path)
        log.finish(log.open(_received(log.next_seq())), duration_ms=duration)
        log.close()
    assert [entry.duration_ms for entry in read_log_file(path)] == [1.0, 2.0]


async def test_a_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SimStartError, match="Cannot write the log file"):
        await SimServer(log_path=tmp_path / "no" / "sim.jsonl").start()


async def test_a_server_that_takes_no_orders_lets_its_script_and_log_be_read_only():
    async with (
        SimServer(read_only=True) as sim,
        httpx.AsyncClient(base_url=sim.base_url, timeout=20, trust_env=False) as client,
    ):
        for method, path in (("PUT", "/sim/script"), ("DELETE", "/sim/script"), ("DELETE", "/sim/log")):
            assert (await client.request(method, path, json={})).status_code == 403
        for path in ("/sim/health", "/sim/script", "/sim/log"):
            assert (await client.get(path)).status_code == 200
        for since in ("x", "-1", "²", "9" * 5_000):
            assert (await client.get("/sim/log", params={"since": since})).status_code == 400
