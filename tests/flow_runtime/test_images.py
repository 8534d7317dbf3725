"""`prompt.images`: content parts with URLs that only the provider opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flow_runtime.hub_models import local_models
from flow_runtime.local import LocalFlow
from llmhub_runtime import LLMHub
from support.flows import ScriptedModels, run_flow, small_flow

PIXEL = "data:image/png;base64,iVBORw0KGgo="
CONFIGS = Path(__file__).parents[2] / "configs"


def looking(images: str = "['${photo}']", node: str = "", type: str = "string", role: str = "main"):
    return small_flow(
        f"""
        look:
          inputs: [{{name: photo, type: {type}, optional: true}}, {{name: x, type: string}}]
          outputs: [{{name: answer, type: {"array" if node else "string"}}}]
          {node}
          prompt: {{system: look closely, template: "{{{{ x }}}}", role: {role}, images: {images}}}
        """,
        ["_input.x -> look.x", "_input.photo -> look.photo", "look.answer -> _output"],
        context={"optional": ["photo", "other"]},
    )


async def sent(flow: Any, **request: Any) -> list[Any]:
    models = ScriptedModels({"main": ["a cat"]})
    report = await run_flow(flow, {"x": "what?", **request}, models=models)
    assert report.error is None, report.error
    return [messages[-1]["content"] for _, messages, _ in models.calls]


@pytest.mark.parametrize(
    "url", [PIXEL, "https://example.com/cat.png?size=1#x", "http://example.com:8080/cat", "HTTPS://EXAMPLE.COM"]
)
async def test_an_image_is_a_part_of_the_message_behind_its_text(url: str):
    [content] = await sent(looking(), photo=url)
    assert content == [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]


async def test_without_an_image_the_message_is_plain_text():
    assert await sent(looking(), photo=None) == ["what?"]
    assert await sent(looking()) == ["what?"]


async def test_images_come_in_their_order_from_ports_their_parts_and_the_request():
    flow = looking("['${context.other}', '${photo.url}']", type="object")
    [content] = await sent(flow, photo={"url": PIXEL}, other="https://example.com/b.png")
    assert [part["image_url"]["url"] for part in content[1:]] == ["https://example.com/b.png", PIXEL]


async def test_with_for_each_every_element_goes_with_its_own_prompt():
    flow = looking(node="for_each: {input: photo}", type="array")
    contents = await sent(flow, photo=[PIXEL, "https://example.com/b.png"])
    assert sorted(content[1]["image_url"]["url"] for content in contents) == sorted(
        [PIXEL, "https://example.com/b.png"]
    )


async def test_only_text_is_an_image():
    models = ScriptedModels({"main": ["a cat"]})
    flow = looking("['${photo.url}']", type="object")
    report = await run_flow(flow, {"x": "what?", "photo": {"url": 3}}, models=models)
    assert "must be a text with a URL, but it is a number" in report.error.message


async def test_the_parts_pass_any_llm_and_the_simulated_model():
    flow = looking(role="llm.writer")
    async with (
        LLMHub(config_path=str(CONFIGS / "llmhub.sim.yaml")) as hub,
        local_models(flow, hub) as models,
        LocalFlow(flow, models=models) as runner,
    ):
        report = await runner.run({"x": "what?", "photo": PIXEL})
    assert report.error is None
    assert "what?" in report.output
