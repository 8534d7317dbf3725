"""A node's body: prompt, then transform; attempts, fallback, error port; what its outputs must be."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from flow_runtime.errors import ModelFailed, NodeTimeout
from support.flows import ScriptedModels, run_flow, small_flow

PROMPT = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: answer, type: %(type)s}]
  %(error)s
  prompt: {template: "{{ x }}", role: main%(prompt)s}
  runtime: {retry_backoff_ms: 0%(runtime)s}
"""


def prompt_flow(
    *, type: str = "string", prompt: str = "", runtime: str = "", error: str = "", edges: list[str] | None = None
):
    nodes = PROMPT % {"type": type, "prompt": prompt, "runtime": runtime, "error": error}
    return small_flow(nodes, ["_input.x -> ask.x", "ask.answer -> _output", *(edges or [])])


async def asked(flow: Any, *answers: Any, **more: list[Any]):
    models = ScriptedModels({"main": answers, **more})
    return await run_flow(flow, {"x": "hello"}, models=models), models


async def test_a_prompt_alone_gives_its_text_to_the_single_port():
    report, models = await asked(prompt_flow(), "hi")
    assert report.output == "hi"
    assert models.calls == [("main", [{"role": "user", "content": "hello"}], {})]


async def test_system_temperature_zero_and_max_tokens_reach_the_model_as_they_are():
    flow = prompt_flow(prompt=', system: "be brief", temperature: 0, max_tokens: 7')
    _, models = await asked(flow, "hi")
    [(_, messages, params)] = models.calls
    assert messages[0] == {"role": "system", "content": "be brief"}
    assert params == {"temperature": 0, "max_tokens": 7}


SCHEMA = ", output_schema: {type: object, properties: {answer: {type: string}}, required: [answer]}"


async def test_an_output_schema_is_sent_with_a_name_and_its_answer_is_parsed():
    report, models = await asked(prompt_flow(prompt=SCHEMA), {"answer": "yes"})
    assert report.output == "yes", "an object whose only key is the port's name is unwrapped (Q6)"
    response_format = models.calls[0][2]["response_format"]
    assert response_format["json_schema"]["name"] == "ask"
    assert response_format["json_schema"]["schema"]["required"] == ["answer"]


async def test_an_object_with_other_keys_goes_whole_to_the_single_port():
    flow = prompt_flow(type="object", prompt=", output_schema: {type: object}")
    report, _ = await asked(flow, {"answer": 1, "more": 2})
    assert report.output == {"answer": 1, "more": 2}


@pytest.mark.parametrize("answer", ["no json", {"other": 1}, {"answer": 5}])
async def test_an_answer_that_does_not_fit_is_an_attempt_and_is_retried(answer: Any):
    report, models = await asked(prompt_flow(prompt=SCHEMA, runtime=", retries: 3"), answer, answer, {"answer": "ok"})
    assert report.output == "ok"
    assert report.nodes["ask"].attempts == 3
    assert len(models.calls) == 3


async def test_retries_counts_attempts_in_all_so_one_is_no_retry():
    report, models = await asked(prompt_flow(), ModelFailed("down"), "never")
    assert report.error.code == "node_failed"
    assert report.error.node == "ask"
    assert len(models.calls) == 1


async def test_no_pause_follows_the_last_attempt():
    nodes = PROMPT % {"type": "string", "prompt": "", "runtime": "", "error": ""}
    flow = small_flow(
        nodes.replace("retry_backoff_ms: 0", "retries: 1, retry_backoff_ms: 20000"),
        ["_input.x -> ask.x", "ask.answer -> _output"],
    )
    began = time.perf_counter()
    await asked(flow, ModelFailed("down"))
    assert time.perf_counter() - began < 5


async def slow(messages: Any) -> str:
    await asyncio.sleep(30)
    return "late"


async def test_each_attempt_has_its_own_timeout():
    report, models = await asked(prompt_flow(runtime=", timeout_ms: 100, retries: 2"), slow, "in time")
    assert report.output == "in time"
    assert len(models.calls) == 2


CAUGHT = ["ask.broke -> handle.problem", "handle.out -> _output"]
HANDLER = """
handle:
  inputs: [{name: problem, type: object}]
  outputs: [{name: out, type: object}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${problem}"}}}
"""


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (slow, "timeout"),
        (NodeTimeout("too slow"), "timeout"),
        (ModelFailed("down"), "error"),
        ("no json", "validation_fail"),
    ],
)
async def test_every_kind_of_failure_reaches_the_error_port_with_its_attempts(answer: Any, kind: str):
    nodes = PROMPT % {
        "type": "string",
        "prompt": SCHEMA,
        "runtime": ", timeout_ms: 100, retries: 2",
        "error": "error: {name: broke}",
    }
    flow = small_flow(nodes + HANDLER, ["_input.x -> ask.x", "ask.answer -> _output", *CAUGHT])
    report, _ = await asked(flow, answer)
    assert report.error is None
    assert {key: report.output[key] for key in ("node", "type", "attempts")} == {
        "node": "ask",
        "type": kind,
        "attempts": 2,
    }
    assert report.output["reason"]
    assert report.nodes["handle"].status == "succeeded"


async def test_a_fallback_model_answers_once_after_the_last_attempt():
    flow = prompt_flow(prompt=", fallback: {on: error, role: other, static_response: never}", runtime=", retries: 2")
    report, models = await asked(flow, ModelFailed("down"), other=["second"])
    assert report.output == "second"
    assert [role for role, _, _ in models.calls] == ["main", "main", "other"]
    assert report.nodes["ask"].attempts == 3


async def test_the_static_text_comes_last_and_is_parsed_like_an_answer():
    static = """, fallback: {on: [error, timeout], role: other, static_response: '{"answer": "canned"}'}"""
    report, _ = await asked(prompt_flow(prompt=SCHEMA + static), ModelFailed("down"), other=[ModelFailed("down too")])
    assert report.output == "canned"


async def test_a_failure_of_a_kind_that_fallback_does_not_list_is_a_failure():
    flow = prompt_flow(prompt=", fallback: {on: timeout, static_response: never}")
    report, _ = await asked(flow, ModelFailed("down"))
    assert report.error.code == "node_failed"


async def test_prompt_then_transform_and_the_transform_makes_the_result():
    flow = small_flow(
        """
        ask:
          inputs: [{name: x, type: string}]
          outputs: [{name: length, type: number}]
          prompt: {template: "{{ x }}", role: main}
          transform:
            mode: code
            spec: |
              async def transform(inputs, context, state):
                  return {"length": len(inputs["prompt_output"]) + len(inputs["x"])}
        """,
        ["_input.x -> ask.x", "ask.length -> _output"],
    )
    report, _ = await asked(flow, "four")
    assert report.output == 9


async def test_a_payload_or_port_named_error_is_no_failure():
    flow = small_flow(
        """
        a:
          inputs: [{name: x, type: number}]
          outputs: [{name: error, type: object}]
          transform: {mode: declarative, spec: {op: io.format_response, args: {template: {error: {reason: fine}}}}}
        """,
        ["_input.x -> a.x", "a.error -> _output"],
    )
    report = await run_flow(flow)
    assert report.output == {"reason": "fine"}


async def test_a_result_that_lacks_a_port_or_has_the_wrong_type_fails_with_the_ports_name():
    for returned, names in (("'one': 1", "two"), ("'one': 'text', 'two': 2", "one")):
        flow = small_flow(
            f"""
            a:
              inputs: [{{name: x, type: number}}]
              outputs: [{{name: one, type: number}}, {{name: two, type: number}}]
              transform:
                mode: code
                spec: |
                  async def transform(inputs, context, state):
                      return {{{returned}}}
            """,
            ["_input.x -> a.x", "a.one -> _output"],
        )
        report = await run_flow(flow)
        assert report.error.code == "node_failed"
        assert names in report.error.message


async def test_no_more_than_concurrency_calls_of_a_node_run_at_once():
    flow = prompt_flow(runtime=", concurrency: 2")
    running, most = 0, 0

    async def counted(messages: Any) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return "ok"

    from flow_runtime import LocalFlow

    async with LocalFlow(flow, models=ScriptedModels({"main": [counted]})) as runner:
        reports = await asyncio.gather(*(runner.run({"x": "hi"}) for _ in range(10)))
    assert [report.output for report in reports] == ["ok"] * 10
    assert most == 2


async def test_a_cancelled_run_cancels_the_model_call():
    entered, left = asyncio.Event(), asyncio.Event()

    async def hang(messages: Any) -> str:
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return "never"

    task = asyncio.create_task(asked(prompt_flow(), hang))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()


async def test_the_deadline_cuts_attempts_short():
    flow = prompt_flow(runtime=", retries: 100")
    began = time.perf_counter()
    report = await run_flow(flow, {"x": "hi"}, models=ScriptedModels({"main": [slow]}), deadline_s=0.2)
    assert report.error.code == "deadline_exceeded"
    assert time.perf_counter() - began < 5


async def test_a_transform_that_awaits_something_cancelled_fails_like_any_other_and_reaches_the_error_port():
    flow = small_flow(
        """
        a:
          inputs: [{name: x, type: number}]
          outputs: [{name: out, type: object}]
          error: {name: broke}
          runtime: {retries: 2, retry_backoff_ms: 0}
          transform:
            mode: code
            spec: |
              import asyncio
              async def transform(inputs, context, state):
                  task = asyncio.create_task(asyncio.sleep(30))
                  task.cancel()
                  await task
        """,
        ["_input.x -> a.x", "a.out -> _output", "a.broke -> _output"],
    )
    report = await run_flow(flow)
    assert (report.output["type"], report.output["attempts"]) == ("error", 2)


OUTPUTS = {"text": {"type": "string"}, "must": {"type": "object", "schema": {"type": "object", "required": ["a"]}}}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"text": 4, "must": {"a": 1}}, {"text": "4", "must": {"a": 1}}),
        ({"text": 4, "must": {}}, "output 'must'"),
    ],
)
async def test_declared_outputs_are_cast_and_checked(made: dict[str, Any], expected: Any):
    flow = small_flow(
        """
        a:
          inputs: [{name: x, type: object}]
          outputs: [{name: text, type: number}, {name: must, type: object}]
          transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${x}"}}}
        """,
        ["_input.x -> a.x", "a.text -> _output.text", "a.must -> _output.must"],
        outputs=OUTPUTS,
    )
    report = await run_flow(flow, {"x": made})
    if isinstance(expected, dict):
        assert report.output == expected
    else:
        assert report.error.code == "bad_output"
        assert expected in report.error.message


async def test_a_providers_rate_limit_is_the_runs_error_with_the_time_to_wait():
    report, _ = await asked(prompt_flow(), ModelFailed("slow down", retry_after=3.0))
    assert (report.error.code, report.error.retry_after) == ("rate_limited", 3.0)


async def test_the_requests_own_trace_id_is_the_runs_and_nonsense_is_refused():
    flow = prompt_flow()
    models = ScriptedModels({"main": ["ok"]})
    assert (await run_flow(flow, {"x": "hi", "trace_id": "mine-1"}, models=models)).trace_id == "mine-1"
    report = await run_flow(flow, {"x": "hi", "trace_id": {"a": 1}, "event_time": 7}, models=models)
    assert report.error.code == "bad_input"
    assert "'trace_id'" in report.error.message
    assert "'event_time'" in report.error.message
