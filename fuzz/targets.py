"""What is fuzzed: each target takes bytes, and may refuse them only with its own kind of error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow import inspect_flow, plan
from agentflow.bounded import Meter
from agentflow.diagram import mermaid
from agentflow.errors import FlowError
from agentflow.expressions import compile_expression
from agentflow.patterns import compile_pattern
from agentflow.placeholders import compile_args
from agentflow.schemas import compile_schema
from agentflow.signature import FlowField, Signature
from agentflow.templates import compile_template
from agentflow.types import PortType
from agentflow.yaml_tree import read_yaml
from flow_runtime.errors import OperationFailed
from flow_runtime.operations.http_request import build_request
from fuzz.watch import watched
from support.broken_flows import BROKEN
from support.payloads import ESCAPES, EXPRESSIONS, PATTERNS, TEMPLATES

ROOT = Path(__file__).parent.parent
VALUES: Mapping[str, Any] = {
    "x": "text",
    "xs": [1, 2, 3],
    "rows": [{"id": index, "text": "a b"} for index in range(200)],
    "n": 0.5,
    "context": {"user_id": "u"},
}
SIGNATURE = Signature(inputs=tuple(FlowField(str(kind), kind, required=False) for kind in PortType))


@dataclass(frozen=True, slots=True)
class Target:
    """`run` says whether the input was accepted; `refuses` are the errors that it may end in."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes], bool]
    refuses: tuple[type[Exception], ...]


def targets() -> tuple[Target, ...]:
    """All targets; imports what they need, kserve among it."""
    language = (FlowError,)
    patterns = [schema["pattern"] for schema, _ in PATTERNS if "pattern" in schema]
    return (
        Target("flow", _flows(), _flow, ()),
        Target("template", _texts(*ESCAPES, *TEMPLATES, *_GOOD_TEMPLATES * _MORE), _template, language),
        Target("expression", _texts(*EXPRESSIONS, *_GOOD_EXPRESSIONS * _MORE), _expression, language),
        Target("placeholder", _texts(*_PLACEHOLDERS), _placeholder, language),
        Target("schema", _schemas(), _schema, language),
        Target("pattern", _texts(*patterns, *_GOOD_PATTERNS * _MORE), _pattern, language),
        Target("url", _texts(*_URLS), _url, (OperationFailed,)),
        *_requests(),
    )


_MORE = 20
"""How often a good seed stands among the hostile ones: a small change of it is what gets far."""
_GOOD_PATTERNS = (r"^[\w.+-]+@[^\s@]+\.\w{2,}$", "^(a|b){2,5}[^c]*$")
_GOOD_TEMPLATES = ("{% for r in rows %}{{ r.id }}{% endfor %}", "{% if n > 0.5 %}{{ x | upper }}{% endif %}")
_GOOD_EXPRESSIONS = ("n > 0.5 and x == 'a'", "context.user_id", "max(xs) if rows[1:3] else len(x)")
_PLACEHOLDERS = ('{"url": "https://a.test/${x}", "body": {"a": ["${xs}", "$${", "${context.user_id}"]}}', '"-${rows}"')


def _texts(*texts: str) -> list[bytes]:
    return [text.encode("utf-8", "surrogatepass") for text in texts if len(text) < 20_000]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _flows() -> list[bytes]:
    files = [*(ROOT / "configs" / "flows").glob("*.yaml"), *(ROOT / "tests" / "agentflow" / "flows").glob("*.yaml")]
    texts = [file.read_text() for file in sorted(files)]
    trees = [read_yaml(text, file="seed").data for text in texts]
    return _texts(*(case.text for case in BROKEN), *texts * _MORE, *[json.dumps(tree) for tree in trees] * _MORE)


def _flow(data: bytes) -> bool:
    with watched():
        flow, findings = inspect_flow(_text(data) + "\n")
        assert all(finding.message for finding in findings), findings
        if flow is None or any(finding.severity == "error" for finding in findings):
            assert findings, "refused without a reason"
            return False
        plan(flow)
        mermaid(flow)
    return True


def _template(data: bytes) -> bool:
    with watched():
        template = compile_template(_text(data), VALUES.keys())
    template.render(VALUES)
    return True


def _expression(data: bytes) -> bool:
    with watched():
        compile_expression(_text(data), VALUES.keys()).evaluate(VALUES)
    return True


def _placeholder(data: bytes) -> bool:
    value = _json(data)
    with watched():
        compile_args(value, VALUES.keys()).resolve(VALUES)
    return True


def _schemas() -> list[bytes]:
    pairs: list[tuple[Any, Any]] = [
        ({"type": "object", "properties": {"a": {"type": "number", "minimum": 1}}, "required": ["a"]}, {"a": 0}),
        ({"items": {"$ref": "#/definitions/a"}, "definitions": {"a": {"enum": [1, "b"]}}}, [1, "b", 3]),
        ({"anyOf": [{"pattern": "^a"}, {"type": "null"}], "not": {"const": 3}}, "ab"),
        ({"patternProperties": {"^x": {"maxLength": 3}}, "additionalProperties": False}, {"xa": "abcd"}),
        ({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}, [[[[[[1]]]]]]),
        ({"uniqueItems": True, "contains": {"multipleOf": 0.1}}, [1, [2], {"a": 1}]),
    ]
    return [json.dumps(pair).encode() for pair in pairs]


def _schema(data: bytes) -> bool:
    value = _json(data)
    schema, checked = value if isinstance(value, list) and len(value) == 2 else (value, value)
    with watched():
        return compile_schema(schema).check(checked) is None


def _pattern(data: bytes) -> bool:
    with watched():
        pattern = compile_pattern(_text(data))
        return pattern.found_in("a" * 300 + "!", Meter(10**6))


_URLS = (
    "https://api.example.com/a/b?x=1#y",
    "http://127.0.0.1:8080/",
    "https://[::ffff:127.0.0.1]:1/",
    "https://user:pw@example.com/",
    "https://example.com\\@evil.test/%2e%2e/",
    "https://xn--nxasmq6b.test/",
    "http://2130706433/\u2028",
)


def _url(data: bytes) -> bool:
    text = _text(data)
    request = build_request("GET", {"url": text, "headers": {"x-a": text[:200]}}, largest_body=10)
    line = request.target + request.netloc + b"".join(value for _, value in request.headers)
    assert not set(line) & {0, 10, 13}, "a line break would be sent"
    assert b"@" not in request.netloc, "credentials would be sent"
    return True


def _requests() -> tuple[Target, ...]:
    from kserve import ModelRepository
    from kserve.errors import InvalidInput

    from agentflow_serve import codec
    from agentflow_serve.data_plane import FlowDataPlane
    from agentflow_serve.errors import RequestRefused
    from agentflow_serve.limits import EdgeLimits
    from agentflow_serve.request_body import check_json

    limits = EdgeLimits()
    plane = FlowDataPlane(model_registry=ModelRepository())
    json_headers = [(b"content-type", b"application/json")]

    def instances(data: bytes) -> bool:
        check_json(data, path="/v1/models/m:predict", headers=json_headers, limits=limits)
        codec.read_instances(data, limits=limits)
        return True

    def tensors(data: bytes) -> bool:
        length = str(data.find(b"\n") + 1)
        headers = [(b"inference-header-content-length", length.encode())]
        check_json(data, path="/v2/models/m/infer", headers=headers, limits=limits)
        told = {"inference-header-content-length": length}
        request, _ = plane.decode(data, told, protocol_version="v2", model_name="m")
        rows = codec.read_rows(request, signature=SIGNATURE, limits=limits)
        assert len(rows) <= limits.max_batch
        json.dumps(rows, allow_nan=False)
        return True

    refuses = (InvalidInput, RequestRefused)
    texts = [{"name": "string", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]
    numbers = [{"name": "embedding", "shape": [1, 2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}]
    flags = [{"name": "boolean", "shape": [2], "datatype": "BOOL", "data": [True, False]}]
    objects = [{"name": "object", "shape": [1], "datatype": "BYTES", "data": ['{"a": [1]}']}]
    return (
        Target("v1 body", _texts('{"instances": [{"x": 1}, {"a": ["b", null, 1.5]}]}'), instances, refuses),
        Target(
            "v2 body",
            [
                json.dumps({"inputs": texts}).encode() + b"\n" + b"\x01\0\0\0a",
                json.dumps({"inputs": numbers}).encode() + b"\n" + b"\0" * 16,
                json.dumps({"inputs": flags, "outputs": [{"name": "y"}], "id": "1"}).encode() + b"\n",
                json.dumps({"inputs": objects}).encode() + b"\n",
            ],
            tensors,
            refuses,
        ),
    )


def _json(data: bytes) -> Any:
    """Values of any depth, as a caller could build them; text that is no JSON is a text."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return _text(data)
