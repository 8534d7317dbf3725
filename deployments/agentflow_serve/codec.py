"""Between KServe payloads and what a flow takes and gives.

V1: `instances` is a list of requests. V2: one BYTES tensor `request` whose elements are requests in JSON, or
one tensor for each field of the flow's signature; the first dimension is the batch. Outputs go the same way
back: one tensor for each output, or one BYTES tensor `response` in JSON where the signature names no outputs.
A field of the flow that is itself called `request` wins over the tensor of that name.

A JSON object has no datatype in V2: it is the text of one BYTES element, with the tensor parameter
`content_type: json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse

from agentflow.signature import FlowField, Signature
from agentflow.types import PortType
from agentflow_serve.errors import STATUS, RunFailed
from agentflow_serve.json_text import check_value, parse_document
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.tensors import BOOL, BYTES, FLOATS, INTEGERS, Tensor, label, read_shape, read_tensor

REQUEST = "request"
RESPONSE = "response"

_DATATYPE: Mapping[PortType | None, str] = {
    PortType.NUMBER: "FP64",
    PortType.BOOLEAN: BOOL,
    PortType.EMBEDDING: "FP64",
}
_ACCEPTED: Mapping[PortType | None, frozenset[str]] = {
    PortType.NUMBER: frozenset({*FLOATS, *INTEGERS}),
    PortType.BOOLEAN: frozenset({BOOL}),
    PortType.STRING: frozenset({BYTES}),
    PortType.DOCUMENT: frozenset({BYTES}),
    PortType.OBJECT: frozenset({BYTES}),
    PortType.TABLE: frozenset({BYTES}),
    PortType.ARRAY: frozenset({BYTES, BOOL, *FLOATS, *INTEGERS}),
    PortType.EMBEDDING: frozenset({BYTES, *FLOATS}),
    None: frozenset({BYTES, BOOL, *FLOATS, *INTEGERS}),
}
_TEXTS = frozenset({PortType.STRING, PortType.DOCUMENT})
_LISTS = frozenset({PortType.ARRAY, PortType.EMBEDDING})


def input_types(signature: Signature) -> list[dict[str, Any]]:
    """The inputs of GET /v2/models/{name}."""
    return _metadata(signature.inputs, instead=REQUEST)


def output_types(signature: Signature) -> list[dict[str, Any]]:
    """The outputs of GET /v2/models/{name}."""
    return _metadata(signature.outputs, instead=RESPONSE)


def _metadata(fields: Sequence[FlowField], *, instead: str) -> list[dict[str, Any]]:
    if not fields:
        return [{"name": instead, "datatype": BYTES, "shape": [-1]}]
    return [
        {
            "name": field.name,
            "datatype": _DATATYPE.get(field.type, BYTES),
            "shape": [-1, -1] if field.type is PortType.EMBEDDING else [-1],
        }
        for field in fields
    ]


# ---- requests ----------------------------------------------------------------------------------------


def read_instances(payload: Any, *, limits: EdgeLimits) -> list[dict[str, Any]]:
    """The requests of a V1 body. Raises InvalidInput.

    kserve parses the JSON itself only under a few exact content types; `application/json; charset=utf-8` is
    not one of them and arrives as bytes.
    """
    if isinstance(payload, bytes):
        try:
            payload = orjson.loads(payload)
        except orjson.JSONDecodeError as exc:
            raise InvalidInput(f"Unrecognized request format: {exc}") from exc
    if not isinstance(payload, dict) or "instances" not in payload:
        raise InvalidInput('Expected a JSON object with "instances"')
    instances = payload["instances"]
    if not isinstance(instances, list):
        raise InvalidInput('Expected "instances" to be a list')
    _check_batch(len(instances), limits=limits)
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise InvalidInput(f"instances[{index}] must be a JSON object with the flow's inputs.")
    return instances


def read_rows(request: InferRequest, *, signature: Signature, limits: EdgeLimits) -> list[dict[str, Any]]:
    """The requests of a V2 body, one for each row of the batch. Raises InvalidInput."""
    fields = {field.name: field for field in signature.inputs}
    _check_names([source.name for source in request.inputs], fields=fields)
    batches = {read_shape(source)[0] for source in request.inputs}
    if len(batches) > 1:
        raise InvalidInput(f"The inputs disagree on the first dimension, the batch: {sorted(batches)}.")
    _check_batch(batches.pop(), limits=limits)
    tensors = [read_tensor(source) for source in request.inputs]
    if tensors[0].name not in fields:
        return _documents(tensors[0], limits=limits)
    columns = {tensor.name: _column(tensor, fields[tensor.name], limits=limits) for tensor in tensors}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check_names(names: Sequence[str], *, fields: Mapping[str, FlowField]) -> None:
    """One tensor "request", or tensors of the signature: looks at no data, however many tensors there are."""
    if not names:
        raise InvalidInput('Expected "inputs": one BYTES tensor "request", or one tensor for each input.')
    if list(names) == [REQUEST]:
        return
    for name in names:
        if name not in fields:
            known = ", ".join(label(known) for known in fields) or 'only the tensor "request"'
            raise InvalidInput(f"The flow has no input {label(name)}; it takes {known}.")
    if len(set(names)) < len(names):
        raise InvalidInput("Two inputs have the same name.")


def _check_batch(size: int, *, limits: EdgeLimits) -> None:
    if size > limits.max_batch:
        raise InvalidInput(f"The batch has {size} requests; at most {limits.max_batch} are accepted.")


def _documents(tensor: Tensor, *, limits: EdgeLimits) -> list[dict[str, Any]]:
    if tensor.datatype != BYTES:
        raise InvalidInput('The tensor "request" must be BYTES, with one JSON document for each request.')
    rows = [_document(text, tensor, row, limits=limits) for row, text in enumerate(tensor.values)]
    for row, value in enumerate(rows):
        if not isinstance(value, dict):
            raise InvalidInput(f'Element {row} of the tensor "request" must be a JSON object.')
    return rows


def _column(tensor: Tensor, field: FlowField, *, limits: EdgeLimits) -> list[Any]:
    """The value of one input for each row."""
    if tensor.datatype not in _ACCEPTED[field.type]:
        wanted = _DATATYPE.get(field.type, BYTES)
        raise InvalidInput(f"Input {label(tensor.name)} is of type {field.type}: send {wanted}, not {tensor.datatype}.")
    if tensor.datatype == BYTES:
        return _texts(tensor, field, limits=limits)
    return _numeric(tensor, field)


def _texts(tensor: Tensor, field: FlowField, *, limits: EdgeLimits) -> list[Any]:
    plain = field.type is None or field.type in _TEXTS
    if plain and not tensor.is_json:
        return tensor.values
    return [_document(text, tensor, row, limits=limits) for row, text in enumerate(tensor.values)]


def _numeric(tensor: Tensor, field: FlowField) -> list[Any]:
    many = field.type in _LISTS or (field.type is None and len(tensor.shape) > 1)
    if not many and tensor.row_size != 1:
        raise InvalidInput(
            f"Input {label(tensor.name)} needs one element for each request, the shape [{tensor.batch}]; "
            f"it has the shape {list(tensor.shape)}."
        )
    if not many:
        return tensor.values
    if len(tensor.shape) != 2:
        raise InvalidInput(f"Input {label(tensor.name)} needs the shape [batch, size], not {list(tensor.shape)}.")
    size = tensor.row_size
    return [tensor.values[row * size : (row + 1) * size] for row in range(tensor.batch)]


def _document(text: str, tensor: Tensor, row: int, *, limits: EdgeLimits) -> Any:
    try:
        return parse_document(text.encode(), max_depth=limits.max_json_depth)
    except ValueError as exc:
        raise InvalidInput(f"Element {row} of input {label(tensor.name)} is not JSON: {exc}.") from exc


# ---- answers -----------------------------------------------------------------------------------------


def check_requested(request: InferRequest, *, model_name: str, signature: Signature) -> None:
    """Refuses outputs that do not exist, in kserve's words, before a run has cost anything."""
    known = {tensor["name"] for tensor in output_types(signature)}
    asked = [output.name for output in request.request_outputs or ()]
    for name in asked:
        if name not in known:
            raise InvalidInput(f"Unexpected inference output '{name}' for model '{model_name}'")
    if len(set(asked)) < len(asked):
        raise InvalidInput("An output is requested twice.")


def check_output(output: Any, *, trace_id: str | None) -> None:
    """Raises RunFailed where a flow's output is not JSON: NaN, an object of Python, too many levels."""
    try:
        check_value(output)
    except ValueError as exc:
        raise _bad_output(f"The flow's output is not JSON: {exc}.", trace_id=trace_id) from exc


def write_response(
    request: InferRequest,
    outputs: Sequence[Any],
    *,
    model_name: str,
    signature: Signature,
    new_id: Callable[[], str],
) -> InferResponse:
    """The V2 answer for the outputs of a batch. Raises RunFailed where one does not fit the signature."""
    if signature.outputs:
        tensors = [_output_tensor(field, _values(outputs, field)) for field in signature.outputs]
    else:
        tensors = [_json_tensor(RESPONSE, outputs)]
    return InferResponse(
        response_id=request.id or new_id(),
        model_name=model_name,
        infer_outputs=tensors,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


def _values(outputs: Sequence[Any], field: FlowField) -> list[Any]:
    if not all(isinstance(output, Mapping) for output in outputs):
        raise _bad_output(f"The flow's output has no part {label(field.name)}: it is not an object.")
    return [output.get(field.name) for output in outputs]


def _output_tensor(field: FlowField, values: list[Any]) -> InferOutput:
    """One output of every row. Where a row has none (its branch did not run) it is JSON, with null there."""
    if any(value is None for value in values):
        return _json_tensor(field.name, values)
    match field.type:
        case PortType.STRING | PortType.DOCUMENT:
            _demand_type(field, values, str)
            return _tensor(field.name, BYTES, np.array(values, dtype=np.object_))
        case PortType.BOOLEAN:
            _demand_type(field, values, bool)
            return _tensor(field.name, BOOL, np.array(values, dtype=np.bool_))
        case PortType.NUMBER:
            _demand_type(field, values, int, float)
            return _tensor(field.name, "FP64", np.array(values, dtype=np.float64))
        case PortType.EMBEDDING:
            return _embedding(field, values)
        case _:
            return _json_tensor(field.name, values)


def _embedding(field: FlowField, values: list[Any]) -> InferOutput:
    _demand_type(field, values, list, tuple)
    for value in values:
        _demand_type(field, value, int, float)
    sizes = {len(value) for value in values}
    if len(sizes) > 1:
        return _json_tensor(field.name, values)
    array = np.array(values, dtype=np.float64).reshape(len(values), sizes.pop() if sizes else 0)
    return _tensor(field.name, "FP64", array)


def _json_tensor(name: str, values: Sequence[Any]) -> InferOutput:
    texts = [check_value(value).decode() for value in values]
    return _tensor(name, BYTES, np.array(texts, dtype=np.object_), parameters={"content_type": "json"})


def _tensor(
    name: str, datatype: str, array: np.ndarray[Any, Any], *, parameters: dict[str, Any] | None = None
) -> InferOutput:
    return InferOutput(name, list(array.shape), datatype, array, parameters)


def _demand_type(field: FlowField, values: Sequence[Any], *types: type) -> None:
    if not {type(value) for value in values} <= set(types):
        raise _bad_output(f"The flow's output {label(field.name)} is declared as {field.type} and is not one.")


def _bad_output(message: str, *, trace_id: str | None = None) -> RunFailed:
    return RunFailed(message, status=STATUS["bad_output"], code="bad_output", trace_id=trace_id)
