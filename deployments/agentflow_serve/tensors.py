"""Reads V2 tensors without trusting them: what a tensor says about itself must be true before numpy sees it.

kserve hands shape, datatype and raw bytes straight to numpy, so a request that lies about them ends as a 500.
Everything wrong here is kserve's InvalidInput, a 400.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferInput

BYTES = "BYTES"
BOOL = "BOOL"
FLOATS: Mapping[str, str] = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
INTEGERS: Mapping[str, str] = {
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
}
DATATYPES = frozenset({BYTES, BOOL, *FLOATS, *INTEGERS})
MAX_RANK = 8
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that is what it says. `values` are Python values in row-major order; BYTES are texts."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def batch(self) -> int:
        return self.shape[0]

    @property
    def row_size(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def is_json(self) -> bool:
        return self.parameters.get("content_type") == "json"


def label(name: str) -> str:
    """A name from a request as an error message may quote it."""
    return repr(name if len(name) <= 64 else name[:63] + "…")


def read_shape(source: InferInput) -> tuple[int, ...]:
    """The checked shape of a tensor whose data nobody has touched. Raises InvalidInput."""
    who = f"Input {label(source.name)}"
    shape = tuple(source.shape)
    if source.datatype not in DATATYPES:
        raise InvalidInput(f"{who} has the unknown datatype {label(source.datatype)}.")
    if not 1 <= len(shape) <= MAX_RANK:
        raise InvalidInput(f"{who} has {len(shape)} dimensions; 1 to {MAX_RANK} are accepted.")
    if any(size < 0 or size >= 2**31 for size in shape):
        raise InvalidInput(f"{who} has a dimension below 0 or above {2**31 - 1}.")
    if source.datatype == BYTES and math.prod(shape[1:]) != 1:
        raise InvalidInput(f"{who} is BYTES: its shape must be [batch], one element for each request.")
    return shape


def read_tensor(source: InferInput) -> Tensor:
    """The checked form of a tensor from REST (a list) or from raw bytes. Raises InvalidInput."""
    who = f"Input {label(source.name)}"
    shape = read_shape(source)
    raw = source._raw_data  # kserve has no public way to a raw buffer that does not decode it first
    if raw is None:
        values = _listed(source.data, datatype=source.datatype, shape=shape, who=who)
    else:
        values = _from_raw(bytes(raw), datatype=source.datatype, count=math.prod(shape), who=who)
    return Tensor(source.name, source.datatype, shape, values, dict(source.parameters or {}))


def _listed(data: Any, *, datatype: str, shape: tuple[int, ...], who: str) -> list[Any]:
    flat = _flatten(data if isinstance(data, list) else [], who=who)
    if len(flat) != math.prod(shape):
        raise InvalidInput(f"{who} has {len(flat)} elements, its shape {list(shape)} says {math.prod(shape)}.")
    kinds = set(map(type, flat))
    if datatype == BYTES:
        _demand(kinds <= {str, bytes}, f"{who} is BYTES: its data must be texts.")
        return [_text(item, who=who) for item in flat]
    if datatype == BOOL:
        _demand(kinds <= {bool}, f"{who} is BOOL: its data must be true or false.")
        return flat
    if datatype in INTEGERS:
        _demand(kinds <= {int}, f"{who} is {datatype}: its data must be whole numbers.")
    else:
        _demand(kinds <= {int, float}, f"{who} is {datatype}: its data must be numbers.")
    return _numbers(flat, datatype=datatype, who=who)


def _flatten(data: list[Any], *, who: str) -> list[Any]:
    """The elements of a list that may be nested along its dimensions, but only regularly."""
    while any(isinstance(row, list) for row in data):
        if not all(isinstance(row, list) and len(row) == len(data[0]) for row in data):
            raise InvalidInput(f"{who} has data that is nested unevenly.")
        data = [item for row in data for item in row]
    return data


def _numbers(flat: list[Any], *, datatype: str, who: str) -> list[Any]:
    dtype = np.dtype(FLOATS.get(datatype) or INTEGERS[datatype])
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype=dtype)
    except OverflowError:
        raise InvalidInput(f"{who} has a number that does not fit into {datatype}.") from None
    return _finite(array, who=who)


def _from_raw(raw: bytes, *, datatype: str, count: int, who: str) -> list[Any]:
    if datatype == BYTES:
        return _framed(raw, count=count, who=who)
    dtype = np.dtype("u1" if datatype == BOOL else FLOATS.get(datatype) or INTEGERS[datatype])
    if len(raw) != count * dtype.itemsize:
        raise InvalidInput(f"{who} has {len(raw)} bytes, its shape and datatype say {count * dtype.itemsize}.")
    array = np.frombuffer(raw, dtype=dtype)
    if datatype == BOOL:
        _demand(not np.any(array > 1), f"{who} is BOOL: its bytes must be 0 or 1.")
        return array.astype(bool).tolist()
    return _finite(array, who=who)


def _framed(raw: bytes, *, count: int, who: str) -> list[str]:
    """BYTES in binary form: each element has its length before it, 4 bytes, little-endian."""
    texts: list[str] = []
    at = 0
    while at < len(raw) and len(texts) <= count:
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else start
        if end > len(raw):
            raise InvalidInput(f"{who} ends in the middle of an element.")
        texts.append(_text(raw[start:end], who=who))
        at = end
    if len(texts) != count:
        raise InvalidInput(f"{who} does not have the {count} elements that its shape says.")
    return texts


def _text(item: str | bytes, *, who: str) -> str:
    if isinstance(item, str):
        return item
    try:
        return item.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{who} has an element that is not UTF-8 text.") from None


def _finite(array: np.ndarray[Any, Any], *, who: str) -> list[Any]:
    _demand(bool(np.isfinite(array).all()), f"{who} has a number that is NaN, infinite or out of range.")
    return array.tolist()


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidInput(message)
