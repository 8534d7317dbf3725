"""`slot.call`: a slot of an installed program as a node's work."""

from __future__ import annotations

from typing import Any

import pytest

from flow_runtime import LocalFlow, LocalSettings, run
from flow_runtime.errors import CodeRefused, ModelFailed, OperationFailed
from llmhub_runtime import LLMHub, parse_runtime_config
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.report import RunReport
from support.flows import ScriptedModels, small_flow


def flow_of(
    slot: str, args: str, *, type: str = "object", module: str = "support.slots", more: str = "", **top: Any
) -> Any:
    return small_flow(
        f"""
work:
  inputs: [{{name: x, type: string}}]
  outputs: [{{name: out, type: {type}}}]
  transform:
    mode: declarative
    spec: {{op: slot.call, args: {{module: {module}, slot: {slot}, args: {args}{more}}}}}
""",
        ["_input.x -> work.x", "work.out -> _output"],
        **({"defaults": {"role": "writer"}} | top),
    )


async def made(flow: Any, *answers: Any, modules: tuple[str, ...] = ("support",)) -> tuple[RunReport, ScriptedModels]:
    models = ScriptedModels({"writer": answers or ("",), "other": answers or ("",)})
    async with LocalFlow(flow, models=models, settings=LocalSettings(slot_modules=modules)) as runner:
        return await runner.run({"x": "help me"}), models


async def test_async_and_sync_slots_are_answered_by_the_nodes_model():
    report, models = await made(
        flow_of("summarize", '{text: "${x}", max_words: 3}', type="string"), {"result": "short"}
    )
    assert report.output == "short"
    assert "help me" in str(models.calls[0][1][-1]["content"])
    report, models = await made(
        flow_of("triage", '{text: "${x}"}', more=", role: other"), {"result": {"title": "t", "urgent": True}}
    )
    assert report.output == {"title": "t", "urgent": True}
    assert [role for role, _, _ in models.calls] == ["other"]


async def test_a_plain_function_is_called_as_it_is():
    report, models = await made(flow_of("shout", '{text: "${x}"}'))
    assert (report.output, models.calls) == ({"text": "HELP ME"}, [])


async def test_an_answer_that_does_not_parse_is_asked_for_again_and_then_a_failure_of_validation():
    report, models = await made(flow_of("summarize", '{text: "${x}"}', type="string"), "nonsense", {"result": "ok"})
    assert (report.output, len(models.calls)) == ("ok", 2)
    report, _ = await made(flow_of("summarize", '{text: "${x}"}', type="string"), "nonsense")
    assert (report.nodes["work"].error or {})["type"] == "validation_fail"


async def test_what_a_slot_gives_back_must_be_json():
    report, _ = await made(flow_of("makes_no_json", "{}"))
    assert (report.nodes["work"].error or {})["type"] == "validation_fail"
    assert "no JSON" in str(report.error)


async def test_what_a_slot_or_its_model_raises_is_an_error_of_the_node():
    report, _ = await made(flow_of("breaks", '{text: "${x}"}'))
    assert "raised KeyError" in str(report.error)
    for slot in ("summarize", "triage"):
        report, _ = await made(flow_of(slot, '{text: "${x}"}'), ModelFailed("the model is down"))
        assert report.error is not None and report.error.message.endswith("the model is down")


async def test_only_allowed_modules_are_imported():
    with pytest.raises(CodeRefused, match="slot_modules"):
        await made(flow_of("shout", "{}"), modules=("supp", "other.support"))
    with pytest.raises(CodeRefused):
        await made(flow_of("system", "{}", module="os"), modules=())
    with pytest.raises(OperationFailed, match=r"there is no slot support\.slots:absent"):
        await made(flow_of("absent", "{}"))


async def test_the_calls_of_slots_are_the_nodes_own_whatever_thread_they_come_from():
    async with SimServer() as sim:
        sim.set_script(
            parse_script(
                {
                    "rules": [
                        {"match": {"contains": "summarize"}, "reply": {"answer": {"result": "short"}}},
                        {"reply": {"answer": {"result": {"title": "t", "urgent": False}}}},
                    ]
                }
            )
        )
        document = {
            "project": "t",
            "env": "t",
            "providers": {"sim": {"api_base": sim.openai_base}},
            "roles": {"writer": {"provider": "sim", "model": "m", "mode": "chat"}},
        }
        async with LLMHub(config_obj=parse_runtime_config(document)) as hub:
            for slot, type in (("summarize", "string"), ("triage", "object")):
                report = await run(flow_of(slot, '{text: "${x}"}', type=type), {"x": "help"}, hub=hub)
                assert report.error is None
                assert report.nodes["work"].use.calls == 1 and report.use.input_tokens > 0
