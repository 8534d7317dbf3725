"""Which rule takes which request, and what a reply may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhub_runtime.sim import Match, Reply, Rule, Script, SimScriptError, SimServer, load_script, parse_script
from llmhub_runtime.sim.director import Director, Facts


def _facts(**given: Any) -> Facts:
    usual: dict[str, Any] = {
        "kind": "chat", "model": "gpt-4o", "role": None, "texts": ("hi",), "last_role": "user", "headers": {}
    }  # fmt: skip
    return Facts(**usual | given)


def _director(*rules: dict[str, Any]) -> Director:
    return Director(parse_script({"rules": list(rules)}))


@pytest.mark.parametrize(
    ("match", "yes", "no"),
    [
        ({"role": "llm.draft"}, {"role": "llm.draft"}, {"role": None}),
        ({"role": "llm.*"}, {"role": "llm.judge"}, {"role": "embed"}),
        ({"model": "gpt-*"}, {"model": "gpt-4o"}, {"model": "claude"}),
        ({"contains": "refund"}, {"texts": ("be kind", "a refund?")}, {"texts": ("Refund",)}),
        ({"kind": "embedding"}, {"kind": "embedding"}, {"kind": "chat"}),
        ({"last_role": "tool"}, {"last_role": "tool"}, {"last_role": "user"}),
        ({"headers": {"X-Tenant": "a"}}, {"headers": {"x-tenant": "a"}}, {"headers": {"x-tenant": "b"}}),
        ({"role": "r", "model": "m"}, {"role": "r", "model": "m"}, {"role": "r", "model": "n"}),
    ],
)
def test_a_rule_takes_what_it_describes(match: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]) -> None:
    director = _director({"match": match, "reply": {"answer": "hit"}})
    assert director.decide(_facts(**yes)).rule == 0
    assert director.decide(_facts(**no)).rule is None
    assert director.applied == (1,)


def test_times_and_nth_let_other_requests_fall_through() -> None:
    director = _director(
        {"match": {"times": 2}, "reply": {"answer": "first two"}},
        {"match": {"nth": 2}, "reply": {"answer": "second of the rest"}},
        {"reply": {"answer": "others"}},
    )
    assert [director.decide(_facts()).rule for _ in range(6)] == [0, 0, 2, 1, 2, 2]


def test_requests_a_rule_does_not_describe_are_not_counted() -> None:
    director = _director({"match": {"role": "a", "times": 1}})
    assert [director.decide(_facts(role=role)).rule for role in ("b", "a", "a")] == [None, 0, None]


@given(st.integers(1, 5), st.integers(1, 12), st.booleans())
def test_answers_are_used_in_turn(count: int, calls: int, cycle: bool) -> None:
    answers = [f"answer {n}" for n in range(count)]
    director = _director({"reply": {"answers": answers, "cycle": cycle}})
    given_answers = [director.decide(_facts()).answer for _ in range(calls)]
    assert given_answers[:count] == answers[:calls]
    assert given_answers[count:] == [answers[n % count if cycle else -1] for n in range(count, calls)]


def test_another_script_starts_all_counters_again() -> None:
    director = _director({"match": {"times": 1}})
    assert director.decide(_facts()).rule == 0
    director.replace(director.script)
    assert (director.applied, director.decide(_facts()).rule) == ((0,), 0)


async def _ask(client: openai.AsyncOpenAI, text: str = "hi", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return await client.chat.completions.create(model="m", messages=messages, **more)


async def test_exact_answers_are_sent_whole(client: openai.AsyncOpenAI, sim: SimServer) -> None:
    sim.set_script(parse_script({"rules": [
        {"match": {"contains": "json"}, "reply": {"answer": {"ok": True}}},
        {"reply": {"answer": "Exactly this, and all of it.", "finish_reason": "content_filter"}},
    ]}))  # fmt: skip
    text = await _ask(client, max_tokens=1, stop=["this"])
    assert text.choices[0].message.content == "Exactly this, and all of it."
    assert text.choices[0].finish_reason == "content_filter"
    assert json.loads((await _ask(client, "json please")).choices[0].message.content) == {"ok": True}


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        ({"x-agentflow-role": "llm.draft"}, {"user": "somebody"}),
        ({}, {"metadata": {"role": "llm.draft"}, "user": "somebody"}),
        ({}, {"user": "llm.draft"}),
    ],
)
async def test_the_role_comes_from_the_header_or_the_body(
    client: openai.AsyncOpenAI, sim: SimServer, headers: dict[str, str], more: dict[str, Any]
) -> None:
    sim.set_script(parse_script({"rules": [{"match": {"role": "llm.draft"}, "reply": {"answer": "draft"}}]}))
    answer = await _ask(client, extra_headers=headers, **more)
    assert answer.choices[0].message.content == "draft"
    assert sim.log()[-1].role == "llm.draft"


@pytest.mark.parametrize("stream", [False, True])
async def test_scripted_tool_calls_are_sent_as_written(
    client: openai.AsyncOpenAI, sim: SimServer, stream: bool
) -> None:
    calls = [{"name": "pay", "arguments": {"amount": 5}, "id": "c1"}, {"name": "broken", "arguments": "{not json"}]
    sim.set_script(parse_script({"rules": [{"match": {"last_role": "user"}, "reply": {"tool_calls": calls}}]}))
    answer = await _ask(client, stream=stream)
    if stream:
        parts = [p async for chunk in answer for p in chunk.choices[0].delta.tool_calls or []]
        texts = ["".join(p.function.arguments for p in parts if p.index == index) for index in (0, 1)]
        names = [p.function.name for p in parts if p.function.name]
    else:
        found = answer.choices[0].message.tool_calls
        texts, names = [call.function.arguments for call in found], [call.function.name for call in found]
        assert found[0].id == "c1"
        assert answer.choices[0].finish_reason == "tool_calls"
    assert texts == ['{"amount": 5}', "{not json"]
    assert names == ["pay", "broken"]


async def test_usage_is_reported_as_scripted(http: httpx.AsyncClient, sim: SimServer) -> None:
    async def usage(override: Any, path: str = "/v1/chat/completions", **more: Any) -> Any:
        sim.set_script(Script(rules=(Rule(reply=Reply.model_validate({"answer": "12345", "usage": override})),)))
        body = {"model": "m", "messages": [{"role": "user", "content": "12345678"}], "stream": False} | more
        return (await http.post(path, json=body)).json()

    assert (await usage({"completion_tokens": -5}))["usage"] == {
        "prompt_tokens": 2, "completion_tokens": -5, "total_tokens": -3
    }  # fmt: skip
    assert (await usage({"prompt_tokens": 10**15}))["usage"]["total_tokens"] == 10**15 + 2
    assert "usage" not in await usage("missing")
    assert sim.log()[-1].usage is None
    assert "eval_count" not in await usage("missing", "/api/chat")
    assert (await usage({"prompt_tokens": 9}, "/v1/embeddings", input="x"))["usage"]["prompt_tokens"] == 9


@pytest.mark.parametrize("stream", [False, True])
async def test_time_is_spent_per_answer_and_per_token(client: openai.AsyncOpenAI, sim: SimServer, stream: bool) -> None:
    sim.set_script(
        parse_script({"rules": [{"reply": {"answer": "four byte word", "latency_ms": 60, "ms_per_token": 30}}]})
    )
    answer = await _ask(client, stream=stream)
    if stream:
        assert len([chunk async for chunk in answer]) > 2
    assert (sim.log()[-1].duration_ms or 0) >= 60 + 4 * 30


def test_a_script_file_may_be_yaml_or_json(tmp_path: Path) -> None:
    script = Script(
        rules=(Rule(match=Match(role="r", times=1), reply=Reply.model_validate({"fault": {"kind": "hang"}})),)
    )
    (tmp_path / "a.json").write_text(script.model_dump_json())
    (tmp_path / "a.yaml").write_text("rules:\n- match: {role: r, times: 1}\n  reply: {fault: {kind: hang}}\n")
    (tmp_path / "empty.yaml").write_text("")
    assert load_script(tmp_path / "a.json") == load_script(tmp_path / "a.yaml") == script
    assert load_script(tmp_path / "empty.yaml") == Script()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{match: {rolle: x}}]", r"rules\.0\.match\.rolle"),
        ("rules: [{match: {times: 1, nth: 2}}]", "times or nth, not both"),
        ("rules: [{reply: {answer: a, answers: [b]}}]", "answer or answers, not both"),
        ("rules: [{reply: {fault: {kind: flood}}}]", "flood"),
        ("rules: [{reply: {fault: {kind: error, status: 200}}}]", "greater than or equal to 400"),
        ("rules: [{", "neither YAML nor JSON"),
        ("- a", "not a valid script"),
    ],
)
def test_a_bad_script_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(SimScriptError, match=said) as refused:
        load_script(path)
    assert refused.value.source == str(path)


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimScriptError, match="Cannot read the script"):
        load_script(tmp_path / "none.yaml")
