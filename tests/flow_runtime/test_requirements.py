"""`prompt.requirements` and `repair_attempts`: an answer is accepted, repaired, or a failure of its own kind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flow_runtime import LocalFlow, LocalSettings, run
from flow_runtime.errors import ModelFailed, NodeTimeout
from flow_runtime.flow_tests import run_tests
from flow_runtime.hub_models import called_roles
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.report import RunReport
from support.flows import ScriptedModels, small_flow
from support.sessions import MemorySessions

EDGES = ["_input.x -> ask.x", "ask.out -> _output"]


def flow_of(
    prompt: str, *, type: str = "string", more: str = "", requires: tuple[str, ...] = ("x",), **top: Any
) -> Any:
    return small_flow(
        f"""
ask:
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: {type}}}]
  prompt: {{role: writer, template: "ask {{{{ x }}}}", {prompt}}}
  {more}
""",
        EDGES,
        requires=requires,
        **top,
    )


SHORT = "requirements: [{text: be short, check: len(value) < 6}]"


async def answered(flow: Any, *answers: Any, x: str = "it", **fields: Any) -> tuple[RunReport, ScriptedModels]:
    models = ScriptedModels({"writer": answers})
    async with LocalFlow(flow, models=models) as runner:
        return await runner.run({"x": x, **fields}), models


async def test_an_answer_that_passes_is_asked_for_once_and_no_model_judges_an_expression():
    report, models = await answered(flow_of(SHORT), "fine")
    assert (report.output, len(models.calls)) == ("fine", 1)
    assert models.calls[0][1] == [
        {"role": "user", "content": "ask it\nFulfill the following requirements:\n* be short"}
    ]


async def test_an_answer_that_fails_is_repaired_with_the_reason():
    report, models = await answered(flow_of(SHORT), "much too long", "fine")
    assert report.output == "fine" and report.nodes["ask"].attempts == 1
    assert str(models.calls[1][1][-1]["content"]).endswith("The following requirements failed before:\n* be short")


async def test_repairs_that_are_used_up_are_a_failure_of_validation():
    for repairs, calls in (("", 2), (", repair_attempts: 0", 1), (", repair_attempts: 3", 4)):
        report, models = await answered(flow_of(SHORT + repairs), "much too long")
        assert report.error is not None and "does not fulfil: be short" in report.error.message
        assert (report.nodes["ask"].error or {})["type"] == "validation_fail"
        assert len(models.calls) == calls


async def test_a_node_tries_again_and_falls_back_after_its_repairs():
    flow = flow_of(
        SHORT + ', fallback: {"on": validation_fail, static_response: sorry}',
        more="runtime: {retries: 2, retry_backoff_ms: 0}",
    )
    report, models = await answered(flow, "much too long")
    assert report.output == "sorry"
    assert len(models.calls) == 4


async def test_a_check_sees_the_value_the_inputs_and_the_request():
    check = "value['n'] == context.n and x != ''"
    flow = flow_of(
        f'output_schema: {{type: object, required: [n]}}, requirements: [{{text: as asked, check: "{check}"}}]',
        type="object",
        requires=("x", "n"),
    )
    report, models = await answered(flow, "no json", '{"m": 1}', n=3)
    assert report.error is not None and len(models.calls) == 2
    report, models = await answered(flow, {"n": 2}, {"n": 3}, n=3)
    assert report.output == {"n": 3}
    assert [call[2]["response_format"]["json_schema"]["name"] for call in models.calls] == ["ask", "ask"]


async def test_repair_attempts_alone_repair_an_answer_that_misses_the_schema():
    flow = flow_of("output_schema: {type: object, required: [n]}, repair_attempts: 1", type="object")
    report, models = await answered(flow, "no json", {"n": 1})
    assert report.output == {"n": 1}
    assert models.calls[0][1][-1]["content"] == "ask it", "what nobody requires is not in the prompt"
    assert "the model's answer is not JSON" in str(models.calls[1][1][-1]["content"])


class Judged(ScriptedModels):
    judge = "judge"


async def test_a_model_judges_on_the_role_of_the_configuration_or_on_the_prompts_own():
    flow = flow_of("requirements: [be kind, {text: be short, check: len(value) < 6}], system: Be a poet.")
    models = Judged({"writer": ["much too long", "harsh", "fine"], "judge": ["no", "yes"]})
    flow_patient = flow_of(
        "requirements: [be kind, {text: be short, check: len(value) < 6}], system: Be a poet., repair_attempts: 2"
    )
    async with LocalFlow(flow_patient, models=models) as runner:
        assert (await runner.run({"x": "it"})).output == "fine"
    assert [role for role, _, _ in models.calls] == ["writer", "writer", "judge", "writer", "judge"]
    assert "Be a poet." not in json.dumps(models.calls[2][1])
    report, own = await answered(flow, "fine", "Yes.")
    assert report.output == "fine" and [role for role, _, _ in own.calls] == ["writer", "writer"]


async def test_what_the_provider_does_is_no_matter_of_requirements():
    for error, kind in ((NodeTimeout("slow"), "timeout"), (ModelFailed("down"), "error")):
        for answers in ((error,), ("much too long", error)):
            report, _ = await answered(flow_of(SHORT), *answers)
            assert (report.nodes["ask"].error or {})["type"] == kind


async def test_a_node_that_runs_out_of_time_ends_its_model_call():
    ended = asyncio.Event()

    async def slow(messages: Any) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ""

    report, _ = await answered(flow_of(SHORT, more="runtime: {timeout_ms: 50}"), slow)
    assert (report.nodes["ask"].error or {})["type"] == "timeout"
    assert ended.is_set()


async def test_tools_run_beneath_a_prompt_that_is_checked_and_remembered():
    sim = SimServer()
    await sim.start()
    sim.set_script(
        parse_script(
            {
                "rules": [
                    {
                        "match": {"times": 1},
                        "reply": {"tool_calls": [{"name": "look", "arguments": {"id": "a"}, "id": "c1"}]},
                    },
                    {"reply": {"answer": "found"}},
                ]
            }
        )
    )
    flow = small_flow(
        """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: out, type: string}]
  prompt:
    role: writer
    template: "ask {{ x }}"
    memory: session
    requirements: [{text: be short, check: len(value) < 6}]
    tools: [{name: look, maps_to: look, parameters: {type: object, properties: {id: {type: string}}, required: [id]}}]
look:
  inputs: [{name: id, type: string}]
  outputs: [{name: found, type: object}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: {order: "${id}"}}}}
""",
        EDGES,
        requires=("x", "session_id"),
    )
    document = {
        "project": "t",
        "env": "t",
        "providers": {"sim": {"api_base": sim.openai_base}},
        "roles": {"writer": {"provider": "sim", "model": "m", "mode": "chat"}},
    }
    sessions = MemorySessions()
    try:
        async with LLMHub(config_obj=parse_runtime_config(document)) as hub:
            report = await run(flow, {"x": "it", "session_id": "s"}, hub=hub, settings=LocalSettings(sessions=sessions))
    finally:
        await sim.stop()
    assert report.output == "found"
    assert report.use.calls == 2
    kept = sessions.sessions["default", "s"]
    assert [(record.role, record.text) for record in kept] == [
        ("user", "ask it"),
        ("assistant", ""),
        ("tool", '{"order":"a"}'),
        ("assistant", "found"),
    ]
    assert kept[1].tool_calls[0]["id"] == kept[2].tool_call_id == "c1"
    assert kept[3].usage is not None and kept[3].usage.output_tokens > 0


@pytest.mark.parametrize("more", ["memory: run", "requirements: [{text: be short, check: len(value) < 6}]"])
async def test_images_go_with_a_prompt_that_is_remembered_or_checked(more: str):
    flow = small_flow(
        f"""
ask:
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: string}}]
  prompt: {{role: writer, template: "what?", images: ["${{x}}"], {more}}}
""",
        EDGES,
    )
    for url in ("data:image/jpeg;base64,aGk=", "https://example.com/cat.png"):
        report, models = await answered(flow, "a cat", x=url)
        assert report.output == "a cat"
        text, image = models.calls[0][1][-1]["content"]
        assert text["text"].startswith("what?")
        assert image == {"type": "image_url", "image_url": {"url": url}}


async def test_two_tenants_at_the_same_time_see_nothing_of_each_other():
    """What a request brings is data: never a template, and never there for the next one."""
    flow = flow_of(
        'requirements: [{text: name the customer, check: "context.customer in value"}, be kind], memory: session',
        requires=("x", "customer", "session_id"),
    )
    sent: dict[str, list[str]] = {"acme": [], "zorro": []}

    async def echo(messages: Any) -> str:
        await asyncio.sleep(0)
        text = json.dumps(messages)
        tenant = "acme" if "acme" in text else "zorro"
        sent[tenant].append(text)
        return "yes" if "Reply with 'yes'" in text else tenant

    models = ScriptedModels({"writer": [echo]})
    sessions = MemorySessions()
    async with LocalFlow(flow, models=models, settings=LocalSettings(sessions=sessions)) as runner:
        reports = await asyncio.gather(
            *(
                runner.run(
                    {"x": f"{tenant} {{{{ 7 * 7 }}}} {{% raw %}}", "customer": tenant, "session_id": f"s-{tenant}"}
                )
                for tenant in ("acme", "zorro") * 10
            )
        )
    assert [report.output for report in reports] == ["acme", "zorro"] * 10
    assert all("zorro" not in text and "49" not in text and "{{ 7 * 7 }}" in text for text in sent["acme"])
    assert all("acme" not in text for text in sent["zorro"])


async def test_flow_tests_script_the_judge_or_the_prompts_own_role():
    flow = flow_of(
        "requirements: [be kind]",
        tests=[
            {
                "name": "judged",
                "input": {"x": "it"},
                "models": {"writer": ["harsh", "fine"], "judge": ["no", "yes"]},
                "expect": {"outputs": "fine", "calls": {"writer": 2, "judge": 2}},
            },
            {
                "name": "by itself",
                "input": {"x": "it"},
                "models": {"writer": ["fine", "yes"]},
                "expect": {"outputs": "fine"},
            },
        ],
    )
    assert [(result.name, result.problems) for result in await run_tests(flow)] == [("judged", ()), ("by itself", ())]


async def test_the_judge_of_llmhub_judges_and_is_warmed_up_and_metered_like_any_role():
    flow = flow_of("requirements: [be kind]")
    async with SimServer() as sim:
        sim.set_script(
            parse_script(
                {"rules": [{"match": {"role": "referee"}, "reply": {"answer": "yes"}}, {"reply": {"answer": "fine"}}]}
            )
        )
        document = {
            "project": "t",
            "env": "t",
            "providers": {"sim": {"api_base": sim.openai_base}, "openai": {}},
            "roles": {
                "writer": {"provider": "sim", "model": "m", "mode": "chat"},
                "referee": {"provider": "sim", "model": "j", "mode": "chat"},
            },
            "judge": "referee",
        }
        async with LLMHub(config_obj=parse_runtime_config(document)) as hub:
            report = await run(flow, {"x": "it"}, hub=hub)
        assert report.output == "fine"
        assert [entry.role for entry in sim.log() if entry.kind == "chat"] == ["writer", "referee"]
        assert report.nodes["ask"].use.calls == 2
    assert called_roles(flow, judge="referee") == {"writer", "referee"}
    assert called_roles(flow_of(SHORT), judge="referee") == {"writer"}
