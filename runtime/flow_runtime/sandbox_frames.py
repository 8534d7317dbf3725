"""The messages between a node and its sandbox processes: JSON, each with its length in front.

Values cross as JSON and nothing else, so whatever a transform returns, nothing of it runs on the other side.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

LARGEST_MESSAGE = 16 * 1024 * 1024
HEADER_BYTES = 4


class NotJson(ValueError):
    """The value cannot be a message. The text says why, to follow on a noun: `is of type set, ...`."""


def encode(message: Any) -> bytes:
    """The frame for a message. Raises NotJson for foreign types, NaN, cycles and too many bytes."""
    try:
        body = json.dumps(message, allow_nan=False, separators=(",", ":"), default=_foreign).encode("ascii")
    except NotJson:
        raise
    except RecursionError as exc:
        raise NotJson("is nested too deeply") from exc
    except TypeError as exc:
        raise NotJson(f"cannot be written as JSON: {exc}") from exc
    except ValueError as exc:
        circular = "Circular" in str(exc)
        raise NotJson("holds itself" if circular else "holds a number that is infinite or NaN") from exc
    if len(body) > LARGEST_MESSAGE:
        raise NotJson(f"takes {len(body)} bytes as JSON; at most {LARGEST_MESSAGE} can cross")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def decode_length(header: bytes | bytearray) -> int:
    """The size of the body that follows. Raises NotJson when it is over the limit."""
    length = int.from_bytes(header, "big")
    if length > LARGEST_MESSAGE:
        raise NotJson(f"takes {length} bytes as JSON; at most {LARGEST_MESSAGE} can cross")
    return length


def decode(body: bytes | bytearray) -> Any:
    return json.loads(body)


def _foreign(value: object) -> NoReturn:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    raise NotJson(f"holds a value of type {name}, which JSON does not have")
