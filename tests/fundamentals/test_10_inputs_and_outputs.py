"""`context` lists the fields that a request must and may carry. `inputs` may add a type, a schema or a default to them,
and `outputs` may declare what the answer is made of. Together they are the flow's signature: a server makes its
protocol's metadata from it, and refuses requests that do not fit.
"""

from __future__ import annotations

import agentflow
from flow_runtime import run

SEARCH = """
version: "1.0"
metadata: {name: search}
context: {requires: [query, user], optional: [locale]}
inputs:
  query: {type: string, schema: {type: string, minLength: 3}}
  limit: {type: number, default: 10}
outputs:
  summary: {type: string}
  page: {type: object}
nodes:
  search:
    inputs: [{name: query, type: string}, {name: limit, type: number}]
    outputs: [{name: summary, type: string}, {name: page, type: object}]
    transform:
      mode: declarative
      spec:
        op: io.format_response
        args: {template: {summary: "${limit} results for ${query}", page: {query: "${query}", limit: "${limit}"}}}
edges:
  - {from: _input.query, to: search.query}
  - {from: _input.limit, to: search.limit}
  - {from: search.summary, to: _output.summary}
  - {from: search.page, to: _output.page}
"""


async def test_named_outputs_make_an_object_of_the_answer():
    report = await run(agentflow.loads(SEARCH).flow, {"query": "bees", "user": "ada", "limit": 3})
    assert report.output == {"summary": "3 results for bees", "page": {"query": "bees", "limit": 3}}


async def test_a_default_stands_for_a_field_that_the_request_leaves_out():
    report = await run(agentflow.loads(SEARCH).flow, {"query": "bees", "user": "ada"})
    assert report.output["page"]["limit"] == 10


async def test_a_request_that_does_not_fit_is_told_everything_that_is_wrong_and_nothing_runs():
    report = await run(agentflow.loads(SEARCH).flow, {"query": "b", "limit": "many"})
    assert report.error is not None
    assert report.error.code == "bad_input"
    for part in ("lacks the required field 'user'", "field 'query'", "field 'limit': it is a string, not a number"):
        assert part in report.error.message
    assert report.nodes == {}


def test_the_signature_says_what_a_flow_takes_and_gives():
    signature = agentflow.plan(agentflow.loads(SEARCH).flow).signature
    assert {field.name: field.required for field in signature.inputs} == {
        "query": True,
        "user": True,
        "locale": False,
        "limit": False,
    }
    assert [(field.name, str(field.type)) for field in signature.outputs] == [("summary", "string"), ("page", "object")]


async def test_a_flow_may_pass_the_whole_request_on_and_answer_with_a_single_value():
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: echo}
context: {requires: [x]}
nodes:
  wrap:
    inputs: [{name: request, type: object}]
    outputs: [{name: out, type: object}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: {you_said: "${request}"}}}}
edges:
  - {from: _input, to: wrap.request}
  - {from: wrap.out, to: _output}
""").flow
    assert (await run(flow, {"x": 1, "more": 2})).output == {"you_said": {"x": 1, "more": 2}}
    assert agentflow.plan(flow).signature.outputs == ()


async def test_values_are_converted_where_an_edge_joins_types_that_allow_it():
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: convert}
context: {requires: [count]}
inputs: {count: {type: number}}
nodes:
  say:
    inputs: [{name: count, type: string}]
    outputs: [{name: out, type: object}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: {as_text: "${count}"}}}}
edges:
  - {from: _input.count, to: say.count}
  - {from: say.out, to: _output}
""").flow
    assert (await run(flow, {"count": 3})).output == {"as_text": "3"}


async def test_every_request_has_a_trace_id_and_the_time_of_its_event():
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: when}
context: {requires: []}
nodes:
  say:
    inputs: []
    outputs: [{name: out, type: object}]
    transform:
      mode: declarative
      spec: {op: io.format_response, args: {template: {trace: "${context.trace_id}", at: "${context.event_time}"}}}
edges:
  - {from: say.out, to: _output}
""").flow
    report = await run(flow, {"event_time": "2026-05-01T12:00:00Z"})
    assert report.output == {"trace": report.trace_id, "at": "2026-05-01T12:00:00Z"}
    assert (await run(flow, {})).output["at"] > "2020"
