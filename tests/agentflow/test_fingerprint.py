"""A fingerprint stands for what a flow means, not for how it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow import Flow, loads
from agentflow.fingerprint import canonical, fingerprint
from agentflow.yaml_tree import read_yaml
from support.broken_flows import GOOD

GOLDEN = "ce7b8b0c00f34ac96dfe9ba137ce0bd44ca8615581092e03fe7f859b876b54e6"


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(each) for each in value] if isinstance(value, list) else value


def flow_of(text: str) -> Flow:
    return loads(text).flow


def test_the_canonical_form_is_json_without_what_only_repeats_a_default():
    text = canonical(flow_of(GOOD)).decode()
    data = json.loads(text)
    assert json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert data["nodes"]["draft"] == {
        "inputs": [{"name": "question", "type": "string"}],
        "outputs": [{"name": "reply", "type": "object"}],
        "prompt": {"role": "fast", "template": "Answer: {{ question }}"},
    }
    assert data["edges"][0] == {"from": "_input.question", "to": "draft.question"}


def test_the_fingerprint_of_a_flow_never_changes():
    assert fingerprint(flow_of(GOOD)) == GOLDEN


@pytest.mark.parametrize(
    "same",
    [
        json.dumps(read_yaml(GOOD, file="f").data),
        json.dumps(reversed_keys(read_yaml(GOOD, file="f").data), indent=1),
        GOOD.replace("    prompt:", "    position: {x: 3, y: 4, color: red}\n    prompt:"),
        GOOD.replace("  draft:\n", "  draft:\n    id: draft\n"),
        GOOD.replace("    prompt:", "    runtime: {}\n    prompt:"),
        GOOD.replace("type: object}", "type: object, optional: false}"),
        "# a comment\n" + GOOD,
    ],
)
def test_the_form_does_not_count(same: str):
    assert fingerprint(flow_of(same)) == fingerprint(flow_of(GOOD))


EDGES = "  - {from: draft.reply, to: answer.reply}\n  - {from: answer.result, to: _output}\n"


@pytest.mark.parametrize(
    "changed",
    [
        GOOD.replace("name: desk", "name: desk2"),
        GOOD.replace("{{ question }}", "{{ question }}!"),
        GOOD.replace("      role: fast\n", "      role: fast\n      temperature: 0\n"),
        GOOD.replace(EDGES, "\n".join(reversed(EDGES.splitlines())) + "\n"),
        GOOD.replace("edges:\n", "inputs: {locale: {type: string}}\nedges:\n"),
        GOOD.replace("${reply.text}", "${reply.txt}"),
        GOOD.replace('text: "${reply.text}"', 'text: "${reply.text}", more: null'),
    ],
)
def test_every_change_of_meaning_counts(changed: str):
    assert changed != GOOD
    assert fingerprint(flow_of(changed)) != fingerprint(flow_of(GOOD))


def test_a_default_of_null_is_not_the_same_as_no_default():
    without = GOOD.replace("edges:\n", "inputs: {locale: {description: x}}\nedges:\n")
    null = GOOD.replace("edges:\n", "inputs: {locale: {description: x, default: null}}\nedges:\n")
    assert fingerprint(flow_of(without)) != fingerprint(flow_of(null))
