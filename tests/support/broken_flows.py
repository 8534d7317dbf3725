"""One good flow, and for every finding code ways to break it. `#!` marks the line of the finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GOOD = """\
version: "1.0"
metadata: {name: desk}
context:
  requires: [question]
  optional: [locale]
nodes:
  draft:
    type: transform
    inputs:
      - {name: question, type: string}
    outputs:
      - {name: reply, type: object}
    prompt:
      template: "Answer: {{ question }}"
      role: fast
  answer:
    type: transform
    inputs:
      - {name: reply, type: object}
    outputs:
      - {name: result, type: object}
    transform:
      mode: declarative
      spec:
        op: io.format_response
        args:
          template: {text: "${reply.text}"}
edges:
  - {from: _input.question, to: draft.question}
  - {from: draft.reply, to: answer.reply}
  - {from: answer.result, to: _output}
"""

MARK = "#!"


@dataclass(frozen=True)
class Broken:
    """A flow with one defect: the finding's code and path, and what to change in GOOD (or the whole text)."""

    code: str
    path: str
    text: str
    known: dict[str, Any]
    severity: str = "error"
    unmarked_line: int = 1

    @property
    def line(self) -> int:
        """The marked line; where a text cannot hold a mark, the line that the case gives."""
        before, mark, _ = self.text.partition(MARK)
        return before.count("\n") + 1 if mark else self.unmarked_line


def broken(code: str, path: str, *changes: tuple[str, str], severity: str = "error", **known: Any) -> Broken:
    """GOOD with changes; each old text must be there once."""
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, f"{code}: {old!r} stands {text.count(old)} times in the flow"
        text = text.replace(old, new)
    assert text.count(MARK) == 1, f"{code}: mark one line"
    return Broken(code, path, text, known, severity)


def whole(code: str, path: str, text: str, *, line: int = 1) -> Broken:
    """A text of its own."""
    return Broken(code, path, text, {}, unmarked_line=line)


ROLE = "      role: fast\n"
SPEC = """\
      spec:
        op: io.format_response
        args:
          template: {text: "${reply.text}"}
"""
TRANSFORM = "    transform:\n      mode: declarative\n" + SPEC
ANSWER_EDGE = "  - {from: answer.result, to: _output}\n"
DRAFT_EDGE = "  - {from: draft.reply, to: answer.reply}\n"
QUESTION_EDGE = "  - {from: _input.question, to: draft.question}\n"
NODES = "nodes:\n"
EDGES = "edges:\n"
RESULT = "      - {name: result, type: object}\n"
REPLY_IN = "    inputs:\n      - {name: reply, type: object}\n"
REPLY_OUT = "      - {name: reply, type: object}\n    prompt:"
LOCALE = "  optional: [locale]\n"
ASYNC_CODE = '    transform: {mode: code, spec: "async def transform(inputs, context, state): return {}"}\n'


def code_node(source: str) -> tuple[str, str]:
    return (TRANSFORM, f"    transform:\n      mode: code\n      spec: {source!r} {MARK}\n")


def operation(op: str, args: str) -> tuple[str, str]:
    return (SPEC, f"      spec:\n        op: {op}\n        args: {args}\n")


IN_TEXT = [
    whole("yaml-syntax", "metadata", "version: '1.0'\nmetadata: {name: x\n", line=3),
    whole("yaml-syntax", "", "a: 1\n]: 2 #!\n"),
    whole("yaml-tab", "metadata", "metadata:\n\tname: x #!\n"),
    whole("yaml-alias", "metadata", "metadata: &m {name: x} #!\n"),
    whole("yaml-alias", "context", "metadata: {name: x}\ncontext: *m #!\n"),
    whole("yaml-tag", "metadata", "metadata: !!python/object:os.system {} #!\n"),
    whole("yaml-tag", "version", "version: !!str 1.0 #!\n"),
    whole("yaml-merge-key", "metadata", "metadata:\n  <<: {name: x} #!\n"),
    whole("yaml-documents", "", "version: '1.0'\n--- #!\nversion: '1.0'\n"),
    whole("duplicate-key", "", "version: '1.0'\nedges: []\nversion: '1.0' #!\n"),
    whole("duplicate-key", "nodes", "nodes:\n  a: {}\n  b: {}\n  a: {} #!\n"),
    whole("bad-key", "nodes", "nodes:\n  1: {} #!\n"),
    whole("bad-key", "nodes", "nodes:\n  true: {} #!\n"),
    whole("bad-key", "nodes", "nodes:\n  ? [a, b] #!\n  : {}\n"),
    whole("bad-number", "a", "a: .nan #!\n"),
    whole("bad-number", "a[1]", "a:\n  - 1\n  - -.INF #!\n"),
    whole("bad-number", "a", "a: 1e999 #!\n"),
    whole("bad-number", "a", f"a: {'9' * 5000} #!\n"),
    whole("bad-number", "a", '{"b": 1,\n "a": 1e999}', line=2),
    whole("too-deep", ".".join(["a"] * 64), "{a: " * 70),
    whole("too-deep", "[0]" * 64, "[" * 100_000),
    whole("too-many-nodes", "[99999]", "[" + "0," * 100_001 + "]"),
    whole("too-large", "", "#" + "x" * (1024 * 1024)),
    whole("control-character", "", "version: '1.0'\nmetadata: {name: 'a\0b'} #!\n"),
    whole("not-utf-8", "", "version: '1.0'\nmetadata: {name: '\ud800'} #!\n"),
    whole("not-utf-8", "a", '{"a": "\\ud800"}'),
]
"""Texts that are refused before anybody asks whether they are flows."""

SHAPES = [
    broken("bad-value", "nodes.draft.prompt.tools[0].name", (ROLE, ROLE + "      tools:\n        - {name: a b} #!\n")),
    broken("bad-value", "nodes.draft.prompt.max_tool_rounds", (ROLE, ROLE + "      max_tool_rounds: 33 #!\n")),
    broken("unknown-key", "nodes.draft.prompt.rolle", (ROLE, "      rolle: fast #!\n")),
    broken("unknown-key", "nodes.answer.transform.specc", (SPEC, SPEC + "      specc: {} #!\n")),
    broken(
        "unknown-key",
        "edges[1].source",
        ("{from: draft.reply, to", "{source: x, from: draft.reply, #!\n     to"),
    ),
    broken("missing-key", "metadata.name", ("{name: desk}", "{} #!")),
    broken(
        "missing-key",
        "version",
        ('version: "1.0"\n', ""),
        ("metadata: {name: desk}", "metadata: {name: desk} #!"),
    ),
    broken(
        "missing-key",
        "nodes.answer.transform.mode",
        ("    transform:\n      mode: declarative", "    transform: #!"),
    ),
    broken("wrong-type", "nodes.draft.prompt.template", ('"Answer: {{ question }}"', "3 #!")),
    broken("wrong-type", "nodes.draft.runtime.timeout_ms", (ROLE, ROLE + "    runtime: {timeout_ms: '5'} #!\n")),
    broken(
        "wrong-type",
        "nodes.draft.runtime.resources.memory",
        (ROLE, ROLE + "    runtime: {resources: {memory: 1.5}} #!\n"),
    ),
    broken("wrong-type", "nodes.draft", ("  draft:\n", "  draft: [] #!\n  other:\n")),
    broken("bad-value", "version", ('version: "1.0"', "version: 1.0 #!")),
    broken("bad-value", "nodes.Draft", ("  draft:\n", "  Draft: #!\n")),
    broken("bad-value", "nodes.answer.transform.mode", ("mode: declarative", "mode: magic #!")),
    broken("bad-value", "nodes.answer.outputs[0].type", (RESULT, "      - name: result\n        type: json #!\n")),
    broken("bad-value", "nodes.draft.runtime.retries", (ROLE, ROLE + "    runtime: {retries: 0} #!\n")),
    broken("bad-value", "deployment.target", (EDGES, "deployment: {target: lambada} #!\n" + EDGES)),
]
"""Data that has not the shape of a flow."""

WIRING = [
    broken(
        "unknown-node",
        "edges[2].from",
        ("answer.result, to", "asnwer.result, to"),
        (": _output}", ": _output} #!"),
    ),
    broken(
        "unknown-port",
        "edges[1].from",
        ("draft.reply,", "draft.replies,"),
        ("answer.reply}", "answer.reply} #!"),
    ),
    broken(
        "ambiguous-port",
        "edges[2].from",
        (RESULT, RESULT + "      - {name: more, type: string}\n"),
        ("{from: answer.result, to: _output}", "{from: answer, to: _output} #!"),
    ),
    broken(
        "unknown-request-field",
        "edges[0].from",
        ("_input.question, to: draft.question}", "_input.query, to: draft.question} #!"),
    ),
    broken(
        "unknown-output",
        "edges[3].to",
        (
            ANSWER_EDGE,
            "  - {from: answer.result, to: _output.text}\n  - {from: draft.reply, to: _output.txt} #!\n",
        ),
        (EDGES, "outputs: {text: {type: object}}\n" + EDGES),
    ),
    broken(
        "type-mismatch",
        "edges[1].to",
        (REPLY_IN, REPLY_IN.replace("object", "string")),
        ("answer.reply}", "answer.reply} #!"),
    ),
    broken(
        "type-mismatch",
        "edges[2].to",
        (EDGES, "outputs: {a: {type: string}, b: {type: string}}\n" + EDGES),
        (RESULT, RESULT.replace("object", "string")),
        (": _output}", ": _output} #!"),
    ),
    broken(
        "bad-condition",
        "edges[1].condition",
        ("answer.reply}", "answer.reply,\n     condition: 'score >'} #!"),
    ),
    broken(
        "bad-condition",
        "edges[1].condition",
        ("answer.reply}", "answer.reply,\n     condition: score > 1} #!"),
    ),
    broken("edge-transform", "edges[1].transform", ("answer.reply}", "answer.reply,\n     transform: upper} #!")),
    broken(
        "unknown-context-field",
        "edges[1].condition",
        ("answer.reply}", "answer.reply,\n     condition: context.tier == 1} #!"),
    ),
]

GRAPH = [
    broken(
        "cycle",
        "edges[3]",
        (ANSWER_EDGE, ANSWER_EDGE + "  - {from: answer.result, to: draft.more} #!\n"),
        (
            "      - {name: question, type: string}\n",
            "      - {name: question, type: string}\n      - {name: more, type: object, optional: true}\n",
        ),
    ),
    broken(
        "unwired-input",
        "nodes.draft.inputs[0]",
        (QUESTION_EDGE, ""),
        ("question, type: string}", "question, type: string} #!"),
    ),
    broken("doubled-input", "edges[2]", (DRAFT_EDGE, DRAFT_EDGE + DRAFT_EDGE.rstrip() + " #!\n")),
    broken(
        "no-output",
        "edges",
        (ANSWER_EDGE, ""),
        (EDGES, "edges: #!\n"),
        ("    transform:", "    state: {scope: session, key: 'a_{context.session_id}'}\n    transform:"),
        (LOCALE, "  optional: [session_id]\n"),
        (SPEC, "      spec: 'async def transform(inputs, context, state): return {}'\n"),
        ("mode: declarative", "mode: code"),
    ),
    broken(
        "mixed-outputs",
        "edges[3]",
        (ANSWER_EDGE, ANSWER_EDGE + "  - {from: answer.result, to: _output.text} #!\n"),
    ),
    broken(
        "undelivered-output",
        "outputs.b",
        (EDGES, "outputs:\n  a: {type: object}\n  b: {type: object} #!\n" + EDGES),
        (ANSWER_EDGE, "  - {from: answer.result, to: _output.a}\n"),
    ),
    broken(
        "unneeded-node",
        "nodes.answer",
        (ANSWER_EDGE, "  - {from: draft.reply, to: _output}\n"),
        ("  answer:\n", "  answer: #!\n"),
        severity="warning",
    ),
    broken(
        "unwired-error",
        "nodes.draft.error",
        (REPLY_OUT, REPLY_OUT.replace("    prompt:", "    error: {name: failed} #!\n    prompt:")),
        severity="warning",
    ),
]

NODE = [
    broken("node-id-mismatch", "nodes.draft.id", ("  draft:\n", "  draft:\n    id: drafts #!\n")),
    broken("empty-node", "nodes.answer", (TRANSFORM, ""), ("  answer:\n", "  answer: #!\n")),
    broken(
        "duplicate-port",
        "nodes.answer.outputs[1].name",
        (RESULT, RESULT + "      - {name: result, type: string} #!\n"),
    ),
    broken(
        "duplicate-port",
        "nodes.draft.error.name",
        (REPLY_OUT, REPLY_OUT.replace("    prompt:", "    error: {name: reply} #!\n    prompt:")),
        (DRAFT_EDGE, DRAFT_EDGE + "  - {from: draft.reply, to: _output}\n"),
    ),
    broken(
        "reserved-name",
        "nodes.draft.inputs[1].name",
        (
            "      - {name: question, type: string}\n",
            "      - {name: question, type: string}\n      - {name: prompt_output, type: string, optional: true} #!\n",
        ),
    ),
    broken(
        "reserved-name",
        "nodes.answer.inputs[1].name",
        (REPLY_IN, REPLY_IN + "      - {name: context, type: document, optional: true} #!\n"),
    ),
    broken(
        "unknown-context-field",
        "nodes.draft.runtime.requires_context[1]",
        (ROLE, ROLE + "    runtime:\n      requires_context:\n        - locale\n        - tier #!\n"),
    ),
    broken(
        "unused-retry",
        "nodes.draft.runtime.jitter",
        (ROLE, ROLE + "    runtime: {jitter: true} #!\n"),
        severity="warning",
    ),
    broken(
        "bad-replicas",
        "nodes.draft.runtime.autoscaling.min_replicas",
        (ROLE, ROLE + "    runtime: {autoscaling: {min_replicas: 3, max_replicas: 2}} #!\n"),
    ),
    broken(
        "bad-replicas",
        "deployment.kserve.min_replicas",
        (EDGES, "deployment: {kserve: {min_replicas: 3, max_replicas: 2}} #!\n" + EDGES),
    ),
    broken(
        "bad-replicas",
        "deployment.ray.autoscaling.min_replicas",
        (EDGES, "deployment: {ray: {autoscaling: {min_replicas: 3, max_replicas: 2}}} #!\n" + EDGES),
    ),
]

REPEATS = [
    broken(
        "bad-for-each",
        "nodes.draft.for_each.input",
        (ROLE, ROLE + "    for_each: {input: question} #!\n"),
        (REPLY_OUT, REPLY_OUT.replace("object", "array")),
        (REPLY_IN, REPLY_IN.replace("object", "array")),
    ),
    broken(
        "bad-for-each",
        "nodes.draft.for_each.input",
        (ROLE, ROLE + "    for_each: {input: questions} #!\n"),
        (REPLY_OUT, REPLY_OUT.replace("object", "array")),
        (REPLY_IN, REPLY_IN.replace("object", "array")),
    ),
    broken(
        "bad-for-each",
        "nodes.draft.outputs[0].type",
        (ROLE, ROLE + "    for_each: {input: question}\n"),
        ("question, type: string}", "question, type: array}"),
        (REPLY_OUT, REPLY_OUT.replace("}", "} #!")),
    ),
    broken("bad-loop", "nodes.draft.loop.until", (ROLE, ROLE + "    loop: {until: repl} #!\n")),
    broken(
        "unknown-context-field",
        "nodes.draft.loop.until",
        (ROLE, ROLE + "    loop: {until: context.tier == 1} #!\n"),
    ),
    broken(
        "bad-loop",
        "nodes.answer.outputs[0].type",
        (RESULT, "      - {name: reply, type: boolean} #!\n"),
        (TRANSFORM, TRANSFORM + "    loop: {until: reply}\n"),
        ("answer.result, to", "answer.reply, to"),
    ),
]

LOOK = """\
  look:
    inputs:
      - {name: id, type: string}
      - {name: depth, type: number, optional: true}
    outputs: [{name: found, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "found ${id}"}}}
"""
ID = "parameters: {type: object, properties: {id: {type: string}}, required: [id]}"


def with_tools(*tools: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """A node `look`, and tools of the prompt of `draft`, each in flow style."""
    lines = "".join(f"        - {tool}\n" for tool in tools)
    return (NODES, NODES + LOOK), (ROLE, f"{ROLE}      tools:\n{lines}")


def look(parameters: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return with_tools("{name: look, maps_to: look, parameters: {" + parameters + "}} #!")


def installed_tools(*tools: str) -> tuple[str, str]:
    return ROLE, f"{ROLE}      tools:\n" + "".join(f"        - {tool}\n" for tool in tools)


def with_edge(edge: str) -> tuple[tuple[str, str], ...]:
    """An edge at the node that is a tool; the edge that it would double is gone."""
    return (*_GOOD_LOOK, (EDGES, f"{EDGES}  - {edge} #!\n"), *(((QUESTION_EDGE, ""),) if "draft" in edge else ()))


_FIRST_TOOL = "nodes.draft.prompt.tools[0]"
_CACHED_DRAFT = "      - {name: reply, type: object}\n    runtime: {cache: {ttl_seconds: 1}} #!\n    prompt:"
_GOOD_LOOK = with_tools("{name: look, maps_to: look, " + ID + "}")
TOOLS = [
    broken("duplicate-tool", "nodes.draft.prompt.tools[1].name", installed_tools("{name: a}", "{name: a} #!")),
    broken("unknown-node", f"{_FIRST_TOOL}.maps_to", installed_tools("{name: look, maps_to: lok} #!")),
    broken("bad-tool", _FIRST_TOOL, *with_tools("{name: look, maps_to: look} #!")),
    broken("bad-tool", _FIRST_TOOL, *look("type: object, properties: {id: {type: string}}")),
    broken("bad-tool", _FIRST_TOOL, *look("type: object, properties: {id: {type: number}}, required: [id]")),
    broken("bad-tool", _FIRST_TOOL, *look("type: object, properties: {id: {}, it: {}}, required: [id]")),
    broken("bad-tool", _FIRST_TOOL, *look("type: array")),
    broken("bad-tool", _FIRST_TOOL, *look("type: object, anyOf: [{required: [id]}]")),
    broken(
        "bad-tool", _FIRST_TOOL, installed_tools("{name: a, parameters: {type: object, additionalProperties: {}}} #!")
    ),
    broken(
        "bad-schema",
        f"{_FIRST_TOOL}.parameters",
        installed_tools("{name: a, parameters: {type: object, required: 1}} #!"),
    ),
    broken(
        "cycle",
        "nodes.look.prompt.tools[0].maps_to",
        (
            NODES,
            NODES
            + LOOK.replace(
                "    transform",
                "    prompt: {role: fast, template: a, tools: [{name: a, maps_to: look, "
                + ID
                + "}]} #!\n    transform",
            ),
        ),
        _GOOD_LOOK[1],
    ),
    broken("tool-node", "edges[0].to", *with_edge("{from: _input.question, to: look.id}")),
    broken("tool-node", "edges[0].from", *with_edge("{from: look.found, to: draft.question}")),
    broken(
        "tool-memory",
        "nodes.look.prompt.memory",
        (
            NODES,
            NODES + LOOK[: LOOK.index("    transform")] + "    prompt: {role: fast, template: x, memory: run} #!\n",
        ),
        _GOOD_LOOK[1],
    ),
    broken(
        "cached-action",
        "nodes.draft.runtime.cache",
        *_GOOD_LOOK,
        ("      - {name: reply, type: object}\n    prompt:", _CACHED_DRAFT),
    ),
]

PROMPTS = [
    broken("no-session", "nodes.draft.prompt.memory", (ROLE, ROLE + "      memory: session #!\n")),
    broken(
        "bad-expression",
        "nodes.draft.prompt.requirements[1].check",
        (ROLE, ROLE + "      requirements:\n        - be kind\n        - {text: short, check: len(reply) < 5} #!\n"),
    ),
    broken(
        "no-model",
        "nodes.answer.transform.spec.args.role",
        operation("slot.call", "{module: shop.slots, slot: price} #!"),
    ),
    broken(
        "unknown-role",
        "nodes.answer.transform.spec.args.role",
        operation("slot.call", "{module: shop.slots, slot: price, role: quick} #!"),
        roles=["fast"],
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.args",
        operation("slot.call", "{module: shop.slots, slot: price, role: fast, args: [1]} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.module",
        operation("slot.call", "{module: '${reply.text}', slot: price, role: fast} #!"),
    ),
    broken("bad-template", "nodes.draft.prompt.template", ('{{ question }}"', '{{ query }}" #!')),
    broken("bad-template", "nodes.draft.prompt.template", ('{{ question }}"', '{{ question" #!')),
    broken("bad-template", "nodes.draft.prompt.template", ('{{ question }}"', '{{ question.__class__() }}" #!')),
    broken("bad-image", "nodes.draft.prompt.images[0]", (ROLE, ROLE + "      images: [cat.png] #!\n")),
    broken("bad-image", "nodes.draft.prompt.images[0]", (ROLE, ROLE + "      images: ['${photo}'] #!\n")),
    broken("bad-image", "nodes.draft.prompt.images[0]", (ROLE, ROLE + "      images: ['${question}${question}'] #!\n")),
    broken("bad-image", "nodes.draft.prompt.images[0]", (ROLE, ROLE + "      images: ['https://a/${question}'] #!\n")),
    broken(
        "bad-image",
        "nodes.draft.prompt.images[0]",
        (ROLE, ROLE + "      images: ['${photo}'] #!\n"),
        (
            "      - {name: question, type: string}\n",
            "      - {name: question, type: string}\n      - {name: photo, type: object, optional: true}\n",
        ),
    ),
    broken(
        "unknown-context-field",
        "nodes.draft.prompt.images[0]",
        (ROLE, ROLE + "      images: ['${context.photo}'] #!\n"),
    ),
    broken(
        "role-and-model",
        "nodes.draft.prompt.model",
        (ROLE, ROLE + "      model: {provider: sim, name: x} #!\n"),
    ),
    broken(
        "role-and-model",
        "nodes.draft.prompt.fallback.model",
        (
            ROLE,
            ROLE + "      fallback:\n        'on': error\n        role: x\n        model: {provider: a, name: b} #!\n",
        ),
    ),
    broken("no-model", "nodes.draft.prompt", (ROLE, ""), ("    prompt:\n", "    prompt: #!\n")),
    broken("empty-fallback", "nodes.draft.prompt.fallback", (ROLE, ROLE + "      fallback: {'on': error} #!\n")),
    broken(
        "empty-fallback",
        "nodes.draft.prompt.fallback.on",
        (ROLE, ROLE + "      fallback: {'on': [], role: x} #!\n"),
    ),
    broken(
        "bad-static-response",
        "nodes.draft.prompt.fallback.static_response",
        (
            ROLE,
            ROLE + "      output_schema: {type: object, required: [text]}\n"
            "      fallback: {'on': error, static_response: 'sorry'} #!\n",
        ),
    ),
    broken(
        "bad-static-response",
        "nodes.draft.prompt.fallback.static_response",
        (
            ROLE,
            ROLE + "      output_schema: {type: object, required: [text]}\n"
            "      fallback: {'on': error, static_response: '{\"txt\": 1}'} #!\n",
        ),
    ),
    broken("unknown-role", "nodes.draft.prompt.role", (ROLE, "      role: fast #!\n"), roles=["slow"]),
    broken("unknown-role", "defaults.role", (EDGES, "defaults: {role: lost} #!\n" + EDGES), roles=["fast"]),
    broken(
        "unknown-role",
        "nodes.draft.prompt.fallback.role",
        (ROLE, ROLE + "      fallback: {'on': error, role: lost} #!\n"),
        roles=["fast"],
    ),
    broken(
        "unknown-provider",
        "nodes.draft.prompt.model.provider",
        (ROLE, "      model: {provider: lost, name: x} #!\n"),
        providers=["sim"],
    ),
]

TRANSFORMS = [
    broken("unknown-operation", "nodes.answer.transform.spec.op", ("op: io.format_response", "op: io.format #!")),
    broken(
        "unknown-operation",
        "nodes.answer.transform.spec.op",
        ("op: io.format_response", "op: llm.generate #!"),
    ),
    broken(
        "missing-argument",
        "nodes.answer.transform.spec.args.template",
        ('        args:\n          template: {text: "${reply.text}"}\n', "        args: {} #!\n"),
    ),
    broken(
        "unknown-argument",
        "nodes.answer.transform.spec.args.templat",
        ("        args:\n", "        args:\n          templat: 1 #!\n"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.timeout_ms",
        operation("http.get", "{url: 'https://a.test', timeout_ms: -1} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.url",
        operation("http.get", "{url: 'file:///etc'} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.headers",
        operation("http.get", "{url: 'https://a.test', headers: [a]} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.expression",
        operation("transform.map", "{input: '${reply.items}', expression: 3} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.input",
        operation("transform.map", "{input: 3, expression: item} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.feature_group",
        operation("features.read", "{feature_group: ../etc, key: '${reply}'} #!"),
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.limit",
        operation("features.vector_search", "{index: rules_v1, query: a, limit: 1001} #!"),
    ),
    broken(
        "feature-source",
        "nodes.answer.transform.spec.args",
        operation("features.read", "{feature_group: a, feature_view: b, key: '${reply}'} #!"),
    ),
    broken(
        "feature-source",
        "nodes.answer.transform.spec.args",
        operation("hopsworks.read_features", "{key: '${reply}'} #!"),
    ),
    broken(
        "no-key-column",
        "nodes.answer.transform.spec.args.key",
        operation("features.read", "{feature_group: a, key: 'u-${reply.id}'} #!"),
    ),
    broken(
        "no-embedder",
        "nodes.answer.transform.spec.args.query",
        operation("features.vector_search", "{index: rules_v1, query: '${context.question} again'} #!"),
        has_embedder=False,
    ),
    broken(
        "bad-argument",
        "nodes.answer.transform.spec.args.embedder",
        operation("features.vector_search", "{index: rules_v1, query: a, embedder: [b]} #!"),
    ),
    broken(
        "unknown-role",
        "nodes.answer.transform.spec.args.embedder",
        operation("features.vector_search", "{index: rules_v1, query: a, embedder: lost} #!"),
        roles={"fast"},
    ),
    broken(
        "handle-leaves",
        "edges[2].from",
        operation("hopsworks.get_model", "{name: fraud}"),
        ("{from: answer.result, to: _output}", "{from: answer.result, to: _output} #!"),
    ),
    broken(
        "bad-expression",
        "nodes.answer.transform.spec.args.expression",
        operation("transform.filter", "{input: '${reply.items}', expression: 'acc + item'} #!"),
    ),
    broken(
        "bad-placeholder",
        "nodes.answer.transform.spec.args.template.text",
        ('"${reply.text}"}', '"${replies.text}"} #!'),
    ),
    broken(
        "bad-placeholder",
        "nodes.answer.transform.spec.args.template.text",
        ('"${reply.text}"}', '"${prompt_output}"} #!'),
    ),
    broken(
        "unknown-context-field",
        "nodes.answer.transform.spec.args.template.text",
        ('"${reply.text}"}', '"${context.tier}"} #!'),
    ),
    broken("code-source", "nodes.answer.transform", (TRANSFORM, "    transform: {mode: code} #!\n")),
    broken(
        "code-source",
        "nodes.answer.transform",
        (
            TRANSFORM,
            "    transform: {mode: code, module: 'a:b', spec: 'def transform(inputs, context, state): pass'} #!\n",
        ),
    ),
    broken("bad-code", "nodes.answer.transform.spec", code_node("def transform(inputs, context, state)")),
    broken("bad-code", "nodes.answer.transform.spec", code_node("def transfrom(inputs, context, state): pass")),
    broken("bad-code", "nodes.answer.transform.spec", code_node("def transform(inputs): pass")),
    broken("bad-code", "nodes.answer.transform.spec", code_node("x = " + "-" * 10_000 + "1")),
    broken(
        "bad-code",
        "nodes.answer.transform.module",
        (TRANSFORM, "    transform: {mode: code, module: 'a..b:c'} #!\n"),
    ),
]

STATE = [
    broken(
        "bad-state-key",
        "nodes.answer.state.key",
        (TRANSFORM, "    state: {scope: request, key: '{tier}'} #!\n" + ASYNC_CODE),
    ),
    broken(
        "shared-state-key",
        "nodes.answer.state.key",
        (TRANSFORM, "    state: {scope: session, key: 'chat'} #!\n" + ASYNC_CODE),
    ),
    broken(
        "shared-state-key",
        "nodes.answer.state.key",
        (TRANSFORM, "    state: {scope: session} #!\n" + ASYNC_CODE),
    ),
    broken(
        "ttl-without-session",
        "nodes.answer.state.ttl_seconds",
        (TRANSFORM, "    state: {scope: request, ttl_seconds: 5} #!\n" + ASYNC_CODE),
    ),
    broken(
        "unused-state",
        "nodes.answer.state",
        (TRANSFORM, "    state: {scope: request} #!\n" + TRANSFORM),
        severity="warning",
    ),
    broken(
        "unused-state",
        "nodes.answer.state",
        (TRANSFORM, "    state: {scope: request} #!\n" + ASYNC_CODE.replace("async ", "")),
        severity="warning",
    ),
]

CACHES = [
    broken(
        "cached-action",
        "nodes.draft.runtime.cache",
        (ROLE, ROLE + "      memory: run\n    runtime: {cache: {ttl_seconds: 3}} #!\n"),
    ),
    broken(
        "bad-cache-key",
        "nodes.draft.runtime.cache.key",
        (ROLE, ROLE + "    runtime: {cache: {ttl_seconds: 3, key: '{tier}'}} #!\n"),
    ),
    broken(
        "cached-action",
        "nodes.answer.runtime.cache",
        (TRANSFORM, "    runtime: {cache: {ttl_seconds: 3}} #!\n" + ASYNC_CODE),
    ),
]

INNER = """
      version: "1.0"
      metadata: {name: inner}
      context: {requires: [%s]}
      nodes:
        copy:
          inputs: [{name: reply, type: %s}]
          outputs: [{name: result, type: object}]
          transform: {mode: declarative, spec: {op: io.format_response, args: {template: {text: hi}}}}
      edges: [{from: _input.%s, to: copy.reply}, {from: copy.result, to: _output.%s}]
"""
AS_SUBFLOW = ("  answer:\n    type: transform", "  answer:\n    type: subflow")
MARKED_SUBFLOW = ("  answer:\n    type: transform", "  answer: #!\n    type: subflow")


def inner(takes: str = "reply", type: str = "object", gives: str = "result", more: str = "") -> tuple[str, str]:
    return (TRANSFORM, "    flow:" + INNER % (takes, type, takes, gives) + more)


SUBFLOWS = [
    broken("bad-subflow", "nodes.answer", (TRANSFORM, ""), MARKED_SUBFLOW),
    broken(
        "bad-subflow",
        "nodes.draft.flow",
        (ROLE, ROLE + "    flow: #!" + INNER % ("reply", "object", "reply", "result")),
    ),
    broken("bad-subflow", "nodes.answer.prompt", inner(more="    prompt: {template: hi, role: fast} #!\n"), AS_SUBFLOW),
    broken(
        "subflow-port",
        "nodes.answer.inputs[1]",
        inner(),
        AS_SUBFLOW,
        (REPLY_IN, REPLY_IN + "      - {name: more, type: string, optional: true} #!\n"),
    ),
    broken(
        "subflow-port",
        "nodes.answer.inputs",
        (inner()[0], inner()[1].replace("[reply]", "[reply, tier]")),
        AS_SUBFLOW,
        (REPLY_IN, REPLY_IN.replace("inputs:", "inputs: #!")),
    ),
    broken(
        "subflow-port",
        "nodes.answer.inputs[0]",
        (
            inner()[0],
            inner()[1]
            .replace("      nodes:", "      inputs: {reply: {type: array}}\n      nodes:")
            .replace("reply, type: object", "reply, type: array"),
        ),
        AS_SUBFLOW,
        (REPLY_IN, REPLY_IN.rstrip() + " #!\n"),
    ),
    broken(
        "subflow-port",
        "nodes.answer.outputs[1]",
        inner(),
        AS_SUBFLOW,
        (RESULT, RESULT + "      - {name: more, type: object} #!\n"),
    ),
    broken(
        "subflow-port",
        "nodes.answer.outputs[0]",
        inner(),
        AS_SUBFLOW,
        (RESULT, RESULT.replace("object}", "number} #!")),
    ),
    broken(
        "unknown-operation",
        "nodes.answer.flow.nodes.copy.transform.spec.op",
        (inner()[0], inner()[1].replace("spec: {op: io.format_response,", "spec: {op: io.format, #!\n            ")),
        AS_SUBFLOW,
    ),
]


def in_test(line: str) -> tuple[str, str]:
    return (EDGES, f"tests:\n  - name: a\n    input: {{}}\n    {line} #!\n{EDGES}")


INTERFACE = [
    broken(
        "contradictory-field",
        "context.optional[1]",
        (LOCALE, "  optional:\n    - locale\n    - question #!\n"),
    ),
    broken(
        "contradictory-field",
        "inputs.question.default",
        (EDGES, "inputs: {question: {default: hi}} #!\n" + EDGES),
    ),
    broken("bad-default", "inputs.locale", (EDGES, "inputs: {locale: {type: string, default: 3}} #!\n" + EDGES)),
    broken(
        "bad-default",
        "inputs.locale",
        (EDGES, "inputs: {locale: {schema: {enum: [de]}, default: en}} #!\n" + EDGES),
    ),
    broken("bad-schema", "inputs.locale.schema", (EDGES, "inputs: {locale: {schema: {type: text}}} #!\n" + EDGES)),
    broken(
        "bad-schema",
        "nodes.answer.outputs[0].schema",
        (RESULT, "      - {name: result, type: object, schema: {$ref: '#'}} #!\n"),
    ),
    broken("bad-schema", "nodes.draft.prompt.output_schema", (ROLE, ROLE + "      output_schema: {type: 3} #!\n")),
    broken("lambda-target", "deployment.target", (EDGES, "deployment: {target: lambda} #!\n" + EDGES)),
    broken(
        "duplicate-test",
        "tests[1].name",
        (EDGES, "tests:\n  - {name: a, input: {}}\n  - {name: a, input: {}} #!\n" + EDGES),
    ),
    broken("bad-script", "tests[0].models.slow", in_test("models: {slow: hi}")),
    broken("bad-script", "tests[0].expect.calls.slow", in_test("expect: {calls: {slow: 1}}")),
    broken("bad-script", "tests[0].models.fast", in_test("models: {fast: []}")),
    broken("bad-script", "tests[0].models.fast", in_test("models: {fast: [a, {error: slow}]}")),
    broken(
        "bad-script",
        "tests[0].models.fast",
        installed_tools("{name: add}"),
        in_test("models: {fast: {tool_calls: [{tool: add}]}}"),
    ),
    broken("unknown-node", "tests[0].expect.failed[1]", in_test("expect: {failed: [draft, drafts]}")),
]


def later(path: str, *changes: tuple[str, str]) -> Broken:
    return broken("not-supported-yet", path, *changes)


def in_draft(line: str) -> tuple[str, str]:
    return (ROLE, f"{ROLE}    {line} #!\n")


def on_top(line: str) -> tuple[str, str]:
    return (EDGES, f"{line} #!\n{EDGES}")


LATER = [
    later("nodes.draft.runtime.placement", in_draft("runtime: {placement: auto}")),
    later("deployment.ray.placement", on_top("deployment: {ray: {placement: auto}}")),
    later("durability", on_top("durability: journal")),
    later(
        "nodes.answer.state.backend",
        (TRANSFORM, "    state: {scope: request, backend: redis} #!\n" + ASYNC_CODE),
    ),
]
"""Every field of the language that is read but not run yet."""

BUDGETS = [
    broken("exceed-without-budget", "on_exceed", on_top("on_exceed: ask")),
    broken("empty-budget", "budgets", on_top("budgets: {reserve: call}"), severity="warning"),
    broken("nothing-to-reserve", "budgets.reserve", on_top("budgets: {max_turns: 3, reserve: run}")),
    broken("degrade-without-role", "on_exceed", on_top("budgets: {max_tokens: 5}\non_exceed: degrade")),
    broken(
        "unused-degrade-role",
        "budgets.degrade_role",
        on_top("budgets: {max_tokens: 5, degrade_role: small}"),
        severity="warning",
    ),
    broken(
        "unknown-role",
        "budgets.degrade_role",
        on_top("on_exceed: degrade\nbudgets: {max_tokens: 5, degrade_role: smal}"),
        roles=["fast", "small"],
    ),
    broken(
        "budget-without-price",
        "budgets.max_cost",
        on_top("budgets: {max_cost: 0.5}"),
        unpriced=["fast", "other"],
        severity="warning",
    ),
]

MEANING = [
    *WIRING,
    *GRAPH,
    *NODE,
    *REPEATS,
    *PROMPTS,
    *TOOLS,
    *TRANSFORMS,
    *STATE,
    *CACHES,
    *SUBFLOWS,
    *INTERFACE,
    *BUDGETS,
    *LATER,
]
BROKEN = [*IN_TEXT, *SHAPES, *MEANING]
