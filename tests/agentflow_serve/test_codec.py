"""Requests come out of KServe payloads as they were meant, and no payload can break the reader."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve import ModelRepository
from kserve.constants.constants import INFERENCE_CONTENT_LENGTH_HEADER
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferInput, InferRequest, InferResponse, RequestedOutput
from kserve.protocol.rest.v2_datamodels import InferenceRequest

from agentflow.signature import FlowField, Signature
from agentflow.types import PortType
from agentflow_serve import codec
from agentflow_serve.data_plane import FlowDataPlane
from agentflow_serve.errors import RunFailed
from agentflow_serve.json_text import check_value, looseness, parse_document
from agentflow_serve.limits import EdgeLimits

LIMITS = EdgeLimits(max_batch=8)
FIELDS = [FlowField(str(kind), kind) for kind in PortType]
SIGNATURE = Signature(inputs=(*FIELDS, FlowField("free", None)), outputs=tuple(FIELDS))
ANY_JSON = Signature()


def request(*inputs: InferInput, **rest: Any) -> InferRequest:
    return InferRequest(model_name="m", infer_inputs=list(inputs), **rest)


def tensor(name: str, datatype: str, shape: list[int], data: Any, *, as_json: bool = False) -> InferInput:
    return InferInput(name, shape, datatype, data, {"content_type": "json"} if as_json else {})


def rows(*inputs: InferInput, signature: Signature = SIGNATURE) -> list[dict[str, Any]]:
    return codec.read_rows(request(*inputs), signature=signature, limits=LIMITS)


def answered(outputs: list[Any], signature: Signature, asked: InferRequest | None = None) -> dict[str, Any]:
    """The tensors of the JSON answer, by name."""
    response = respond(outputs, signature, asked or request()).to_rest()[0]
    assert isinstance(response, dict)
    return {output["name"]: output for output in response["outputs"]}


def respond(outputs: list[Any], signature: Signature, asked: InferRequest) -> InferResponse:
    return codec.write_response(asked, outputs, model_name="m", signature=signature, new_id=lambda: "fresh")


# ---- metadata -----------------------------------------------------------------------------------------


def test_metadata_names_the_tensors_of_the_signature() -> None:
    told = {t["name"]: (t["datatype"], t["shape"]) for t in codec.output_types(SIGNATURE)}
    assert told == {
        "string": ("BYTES", [-1]),
        "number": ("FP64", [-1]),
        "boolean": ("BOOL", [-1]),
        "object": ("BYTES", [-1]),
        "array": ("BYTES", [-1]),
        "document": ("BYTES", [-1]),
        "table": ("BYTES", [-1]),
        "embedding": ("FP64", [-1, -1]),
    }
    assert codec.input_types(ANY_JSON) == [{"name": "request", "datatype": "BYTES", "shape": [-1]}]
    assert codec.output_types(ANY_JSON) == [{"name": "response", "datatype": "BYTES", "shape": [-1]}]


# ---- requests -----------------------------------------------------------------------------------------


def test_one_tensor_for_each_input_makes_one_request_for_each_row() -> None:
    assert rows(
        tensor("string", "BYTES", [2], ["a", "b"]),
        tensor("number", "FP64", [2], [1, 2.5]),
        tensor("boolean", "BOOL", [2], [True, False]),
        tensor("object", "BYTES", [2], ['{"k": 1}', "{}"]),
        tensor("embedding", "FP32", [2, 3], [0.5, 1, 2, 3, 4, 5]),
    ) == [
        {"string": "a", "number": 1.0, "boolean": True, "object": {"k": 1}, "embedding": [0.5, 1.0, 2.0]},
        {"string": "b", "number": 2.5, "boolean": False, "object": {}, "embedding": [3.0, 4.0, 5.0]},
    ]


@pytest.mark.parametrize(
    ("given_tensor", "value"),
    [
        (tensor("string", "BYTES", [1], ['{"not": "parsed"}']), '{"not": "parsed"}'),
        (tensor("string", "BYTES", [1], ['"parsed"'], as_json=True), "parsed"),
        (tensor("string", "BYTES", [1, 1], [["triton style"]]), "triton style"),
        (tensor("number", "INT64", [1], [2**53 + 1]), 2**53 + 1),
        (tensor("number", "UINT8", [1, 1], [7]), 7),
        (tensor("array", "BYTES", [1], ["[1, 2]"]), [1, 2]),
        (tensor("array", "INT32", [1, 3], [1, 2, 3]), [1, 2, 3]),
        (tensor("table", "BYTES", [1], ['[{"a": 1}]']), [{"a": 1}]),
        (tensor("embedding", "BYTES", [1], ["[0.25]"]), [0.25]),
        (tensor("embedding", "FP64", [1, 2], [[0.1, 0.2]]), [0.1, 0.2]),
        (tensor("free", "BYTES", [1], ["text"]), "text"),
        (tensor("free", "BYTES", [1], ["[1]"], as_json=True), [1]),
        (tensor("free", "FP64", [1], [1.5]), 1.5),
        (tensor("free", "FP64", [1, 2], [1, 2]), [1.0, 2.0]),
    ],
)
def test_a_tensor_becomes_the_value_its_input_is_declared_as(given_tensor: InferInput, value: Any) -> None:
    (row,) = rows(given_tensor)
    assert row == {given_tensor.name: value}
    assert type(row[given_tensor.name]) is type(value)


def test_the_request_tensor_holds_whole_requests_unless_the_flow_has_an_input_of_that_name() -> None:
    documents = tensor("request", "BYTES", [2], ['{"a": 1}', "{}"])
    assert rows(documents) == rows(documents, signature=ANY_JSON) == [{"a": 1}, {}]
    own = Signature(inputs=(FlowField("request", PortType.OBJECT),))
    assert rows(documents, signature=own) == [{"request": {"a": 1}}, {"request": {}}]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "Expected"),
        ([tensor("nobody", "BYTES", [1], ["a"])], "takes 'string', 'number'"),
        ([tensor("string", "FP64", [1], [1])], "send BYTES, not FP64"),
        ([tensor("boolean", "BYTES", [1], ["true"])], "send BOOL"),
        ([tensor("number", "FP64", [1, 2], [1, 2])], "one element for each request"),
        ([tensor("embedding", "FP32", [3], [1, 2, 3])], "[batch, size]"),
        ([tensor("string", "BYTES", [1, 2], ["a", "b"])], "[batch]"),
        ([tensor("string", "BYTES", [9], ["a"] * 9)], "at most 8"),
        ([tensor("string", "BYTES", [], ["a"])], "0 dimensions"),
        ([tensor("string", "BYTES", [2**40], [])], "above"),
        ([tensor("embedding", "FP64", [-1, -2], [1, 2])], "below 0"),
        ([tensor("string", "TEXT", [1], ["a"])], "unknown datatype"),
        ([tensor("string", "BYTES", [1], [{"a": 1}])], "must be texts"),
        ([tensor("string", "BYTES", [1], ["a"]), tensor("string", "BYTES", [1], ["b"])], "same name"),
        ([tensor("string", "BYTES", [1], ["a"]), tensor("number", "FP64", [2], [1, 2])], "batch: [1, 2]"),
        ([tensor("boolean", "BOOL", [1], ["false"])], "true or false"),
        ([tensor("boolean", "BOOL", [1], [1])], "true or false"),
        ([tensor("number", "INT64", [1], [1.5])], "whole numbers"),
        ([tensor("number", "INT64", [1], [True])], "whole numbers"),
        ([tensor("number", "UINT8", [1], [-1])], "does not fit"),
        ([tensor("number", "FP64", [1], [10**400])], "does not fit"),
        ([tensor("number", "FP64", [1], ["1"])], "must be numbers"),
        ([tensor("number", "FP64", [1], [None])], "must be numbers"),
        ([tensor("number", "FP64", [1], [math.nan])], "NaN"),
        ([tensor("number", "FP32", [1], [1e300])], "out of range"),
        ([tensor("object", "BYTES", [1], ["{"])], "Element 0 of input 'object' is not JSON"),
        ([tensor("object", "BYTES", [1], ["[" * 65 + "]" * 65])], "more than 64 levels"),
        ([tensor("object", "BYTES", [1], ['{"a": NaN}'])], "not JSON"),
        ([tensor("request", "BYTES", [1], ["[]"])], "must be a JSON object"),
        ([tensor("request", "FP64", [1], [1])], "must be BYTES"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_with_the_reason(inputs: list[InferInput], says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        rows(*inputs)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"instances": ["text"]}, "instances[0]"),
        ({"instances": [{}, None]}, "instances[1]"),
        ({"instances": [{}] * 9}, "at most 8"),
        (b"\xff", "Unrecognized request format"),
        (None, "instances"),
    ],
)
def test_v1_instances_must_be_requests(payload: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        codec.read_instances(payload, limits=LIMITS)
    assert says in str(refused.value)


# ---- hostile requests ---------------------------------------------------------------------------------


def decoded(body: bytes | InferenceRequest, headers: dict[str, str]) -> list[dict[str, Any]]:
    plane = FlowDataPlane(model_registry=ModelRepository())
    found, _ = plane.decode(body, headers, protocol_version="v2", model_name="m")
    codec.check_requested(found, model_name="m", signature=SIGNATURE)
    return codec.read_rows(found, signature=SIGNATURE, limits=LIMITS)


@given(texts=st.lists(st.text(), max_size=8), numbers=st.lists(st.floats(allow_nan=False), max_size=8))
def test_binary_tensors_give_back_what_was_put_in(texts: list[str], numbers: list[float]) -> None:
    size = min(len(texts), len(numbers))
    texts, numbers = texts[:size], numbers[:size]
    encoded = [text.encode("utf-8", "replace") for text in texts]
    framed = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    packed = struct.pack(f"<{size}d", *numbers)
    text = json.dumps(
        {
            "inputs": [
                raw("string", "BYTES", [size], len(framed)),
                raw("number", "FP64", [size], len(packed)),
            ]
        }
    ).encode()
    headers = {INFERENCE_CONTENT_LENGTH_HEADER: str(len(text))}
    if any(map(math.isinf, numbers)):
        with pytest.raises(InvalidInput, match="infinite"):
            decoded(text + framed + packed, headers)
        return
    expected = [{"string": t.decode(), "number": n} for t, n in zip(encoded, numbers, strict=True)]
    assert decoded(text + framed + packed, headers) == expected


def raw(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


# ---- answers ------------------------------------------------------------------------------------------


def test_each_declared_output_is_a_tensor_of_its_type() -> None:
    output = {
        "string": "é",
        "number": 3,
        "boolean": True,
        "object": {"k": "é"},
        "array": [1, "a"],
        "document": "# d",
        "table": [{"a": 1}],
        "embedding": [0.1, 2],
    }
    found = answered([output, output], SIGNATURE)
    assert {name: (t["datatype"], t["shape"]) for name, t in found.items()} == {
        tensor["name"]: (tensor["datatype"], [2, 2] if tensor["shape"] == [-1, -1] else [2])
        for tensor in codec.output_types(SIGNATURE)
    }
    assert found["string"]["data"] == ["é", "é"]
    assert found["number"]["data"] == [3.0, 3.0]
    assert found["boolean"]["data"] == [True, True]
    assert found["embedding"]["data"] == [0.1, 2.0, 0.1, 2.0]
    for name in ("object", "array", "table"):
        assert found[name]["parameters"] == {"content_type": "json"}
        assert [json.loads(text) for text in found[name]["data"]] == [output[name]] * 2


def test_an_output_whose_branch_did_not_run_is_null_in_a_tensor_that_says_it_is_json() -> None:
    signature = Signature(outputs=(FlowField("n", PortType.NUMBER), FlowField("s", PortType.STRING)))
    found = answered([{"n": 1.5}, {"n": None, "s": "x"}], signature)
    assert found["n"]["data"] == ["1.5", "null"]
    assert found["s"]["data"] == ["null", '"x"']
    assert all(t["parameters"] == {"content_type": "json"} for t in found.values())


def test_embeddings_of_different_sizes_are_json() -> None:
    signature = Signature(outputs=(FlowField("e", PortType.EMBEDDING),))
    assert answered([{"e": [1.0]}, {"e": [1.0, 2.0]}], signature)["e"]["data"] == ["[1.0]", "[1.0,2.0]"]


def test_without_declared_outputs_the_answer_is_one_json_tensor() -> None:
    found = answered([{"a": [1]}, None, "x"], ANY_JSON)["response"]
    assert (found["datatype"], found["shape"], found["data"]) == ("BYTES", [3], ['{"a":[1]}', "null", '"x"'])


@pytest.mark.parametrize("binary", [False, True])
def test_an_empty_batch_has_an_empty_answer(binary: bool) -> None:
    asked = request(parameters={"binary_data_output": binary})
    answer, length = respond([], SIGNATURE, asked).to_rest()
    head = json.loads(answer[:length]) if isinstance(answer, bytes) else answer
    assert (length is not None) == binary
    assert {output["shape"][0] for output in head["outputs"]} == {0}


def test_only_outputs_that_exist_can_be_asked_for_and_only_once() -> None:
    for names, says in [
        (["number", "x"], "Unexpected inference output 'x' for model 'm'"),
        (["number"] * 2, "twice"),
    ]:
        asked = request(request_outputs=[RequestedOutput(name) for name in names])
        with pytest.raises(InvalidInput, match=says):
            codec.check_requested(asked, model_name="m", signature=SIGNATURE)
    codec.check_requested(request(request_outputs=[RequestedOutput("number")]), model_name="m", signature=SIGNATURE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("string", 1),
        ("number", True),
        ("number", "1"),
        ("boolean", 1),
        ("embedding", "ab"),
        ("embedding", ["a"]),
    ],
)
def test_an_output_that_is_not_what_the_flow_declares_is_the_flows_failure(name: str, value: Any) -> None:
    signature = Signature(outputs=(FlowField(name, PortType(name)),))
    with pytest.raises(RunFailed, match=f"'{name}' is declared as {name}") as failed:
        answered([{name: value}], signature)
    assert (failed.value.status, failed.value.code) == (500, "bad_output")


def test_an_output_that_has_no_parts_is_the_flows_failure_when_parts_are_declared() -> None:
    with pytest.raises(RunFailed, match="not an object"):
        answered(["text"], SIGNATURE)


# ---- JSON text ----------------------------------------------------------------------------------------


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], {"a": {1, 2}}, object(), 2**64, "\ud800", {"\ud800": 1}, _circle(), b"x"],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_no_json_parser_reads_back_is_no_output(value: Any) -> None:
    with pytest.raises(RunFailed, match="not JSON"):
        codec.check_output(value, trace_id=None)


def test_a_value_that_nests_deeper_than_parsers_go_is_no_output() -> None:
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RunFailed, match="not JSON"):
        codec.check_output(deep, trace_id=None)
    while deep:  # so that freeing it does not recurse either
        deep = deep.pop()


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(value=_VALUES)
def test_json_text_is_strict_and_reads_back(value: Any) -> None:
    text = check_value(value)
    assert parse_document(text, max_depth=200) == json.loads(text) == value
    assert looseness(text) is None


@pytest.mark.parametrize("text", [b"NaN", b"[1e999]", b'"\\ud800"', "[]".encode("utf-16"), b"\xef\xbb\xbf[]"])
def test_text_that_only_python_takes_for_json_is_told_from_text_that_nobody_does(text: bytes) -> None:
    json.loads(text)
    assert looseness(text)
    assert looseness(text[:-1] + b"\xff") is None
