"""A node with a declarative `transform` runs an operation. Its arguments hold placeholders: `${port}` is the value of
an input port, `${port.field}` a part of it, `${context.field}` a field of the request. Placeholders never run anything.
"""

from __future__ import annotations

from typing import Any

import agentflow
from flow_runtime import run
from runtime_core.report import RunReport

FLOW = """
version: "1.0"
metadata: {name: operations}
context: {requires: [order, items], optional: [locale]}
inputs: {order: {type: object}, items: {type: array}}
nodes:
  work:
    inputs: [{name: order, type: object}, {name: items, type: array}]
    outputs: [{name: result, type: %(type)s}]
    transform:
      mode: declarative
      spec:
%(spec)s
edges:
  - {from: _input.order, to: work.order}
  - {from: _input.items, to: work.items}
  - {from: work.result, to: _output}
"""

REQUEST = {"order": {"id": 7, "buyer": {"name": "Ada"}}, "items": [{"price": 3}, {"price": 12}], "locale": "de"}


async def working(spec: str, *, type: str = "object") -> RunReport:
    """The report of FLOW, with this operation."""
    return await run(agentflow.loads(FLOW % {"spec": spec, "type": type}).flow, REQUEST)


async def result_of(spec: str, *, type: str = "object") -> Any:
    report = await working(spec, type=type)
    assert report.error is None
    return report.output


async def test_format_response_fills_a_template_of_any_depth():
    spec = """
        op: io.format_response
        args:
          template:
            status: ok
            order: {number: "${order.id}", for: "${order.buyer.name}"}
            language: "${context.locale}"
    """
    assert await result_of(spec) == {"status": "ok", "order": {"number": 7, "for": "Ada"}, "language": "de"}


async def test_a_placeholder_alone_keeps_its_type_and_inside_a_text_it_becomes_text():
    spec = """
        op: io.format_response
        args: {template: {alone: "${items}", inside: "order ${order.id} of ${order.buyer.name}"}}
    """
    assert await result_of(spec) == {"alone": REQUEST["items"], "inside": "order 7 of Ada"}


async def test_two_dollars_are_a_dollar():
    spec = """
        op: io.format_response
        args: {template: {text: "$${order.id} costs $5"}}
    """
    assert await result_of(spec) == {"text": "${order.id} costs $5"}


async def test_a_placeholder_for_something_that_is_not_there_is_an_error_and_not_an_empty_text():
    spec = """
        op: io.format_response
        args: {template: {text: "${order.discount}"}}
    """
    report = await working(spec)
    assert report.error is not None
    assert "discount" in report.error.message


async def test_filter_keeps_the_items_for_which_an_expression_holds():
    spec = """
        op: transform.filter
        args: {input: "${items}", expression: "item['price'] > 5"}
    """
    assert await result_of(spec, type="array") == [{"price": 12}]


async def test_map_makes_a_new_item_of_each():
    spec = """
        op: transform.map
        args: {input: "${items}", expression: "item['price'] * 2"}
    """
    assert await result_of(spec, type="array") == [6, 24]


async def test_reduce_folds_the_items_into_one_value_from_initial_on():
    spec = """
        op: transform.reduce
        args: {input: "${items}", expression: "acc + item['price']", initial: 0}
    """
    assert await result_of(spec, type="number") == 15


def test_an_expression_is_a_small_language_and_not_python():
    spec = """
        op: transform.map
        args: {input: "${items}", expression: "open('/etc/passwd').read()"}
    """
    _, findings = agentflow.inspect_flow(FLOW % {"spec": spec, "type": "array"})
    assert [finding.code for finding in findings] == ["bad-expression"]
