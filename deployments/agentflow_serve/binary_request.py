"""The binary form of a V2 request: JSON, then the raw tensors one after the other."""

from __future__ import annotations

import re
from typing import Any

import orjson
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput
from kserve.protocol.rest.v2_datamodels import Parameters, RequestOutput
from pydantic import BaseModel, ValidationError

from agentflow_serve.tensors import label

_DIGITS = re.compile(r"[0-9]{1,12}")


class _Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


class _Request(BaseModel):
    """kserve's InferenceRequest, with inputs whose data may follow the JSON."""

    id: str | None = None
    parameters: Parameters | None = None
    inputs: list[_Input]
    outputs: list[RequestOutput] | None = None


def read_binary_request(body: bytes, *, json_length: str, model_name: str) -> InferRequest:
    """The request in `body`, whose first `json_length` bytes are JSON; tensors keep their raw bytes.

    Raises InvalidInput where the lengths do not add up to the body or the JSON is not a V2 request.
    """
    if not _DIGITS.fullmatch(json_length) or int(json_length) > len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length must be the length of the JSON at the start of the body, "
            f"0 to {len(body)} bytes here."
        )
    at = int(json_length)
    request = _parse(body[:at])
    inputs: list[InferInput] = []
    raw: list[bytes | None] = []
    for tensor in request.inputs:
        size = None if tensor.data is not None else _binary_size(tensor, left=len(body) - at, model_name=model_name)
        if tensor.data is not None and tensor.datatype.upper() == "FP16":
            raise InvalidInput(
                "Receiving FP16 data via JSON is not supported. Please use the binary data format "
                f"for input {tensor.name}"
            )
        inputs.append(InferInput(tensor.name, tensor.shape, tensor.datatype, tensor.data or [], tensor.parameters))
        raw.append(None if size is None else body[at : at + size])
        at += size or 0
    if at != len(body):
        raise InvalidInput(f"The body is {len(body) - at} bytes longer than its JSON and its tensors.")
    return InferRequest(
        model_name=model_name,
        request_id=request.id,
        infer_inputs=inputs,
        raw_inputs=raw,
        parameters=request.parameters,
        request_outputs=[RequestedOutput(o.name, o.parameters or {}) for o in request.outputs or []] or None,
    )


def _parse(text: bytes) -> _Request:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(f"Unrecognized request format: {exc}") from exc
    try:
        return _Request.model_validate(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise InvalidInput(f"The JSON of the request is not a V2 request: {where}: {first['msg']}.") from exc


def _binary_size(tensor: _Input, *, left: int, model_name: str) -> int:
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        raise InvalidInput(f"'data' field is missing for input '{tensor.name}' for model '{model_name}'")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
        raise InvalidInput(
            f"binary_data_size of input {label(tensor.name)} must be a whole number, "
            f"at most the {left} bytes that are left."
        )
    return size
