"""An answer that must fit a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from agentflow.schemas import compile_schema
from llm_client.tools.strict_json import Unreadable, read_value

MAX_CHARS = 1_048_576
_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class Misfit(Exception):
    """Says in a few words how an answer misses its schema."""


class OutputSchema:
    """A JSON Schema (draft-07), or a pydantic class. Raises agentflow's SchemaInvalid."""

    def __init__(self, wanted: Mapping[str, Any] | type[BaseModel]) -> None:
        self._class = wanted if isinstance(wanted, type) else None
        self._schema = None if isinstance(wanted, type) else compile_schema(dict(wanted))
        self._name = wanted.__name__ if isinstance(wanted, type) else "answer"
        self._source = wanted.model_json_schema() if isinstance(wanted, type) else dict(wanted)

    def response_format(self) -> dict[str, JsonValue]:
        """OpenAI's form."""
        return {"type": "json_schema", "json_schema": {"name": self._name, "schema": self._source}}

    def read(self, text: str) -> Any:
        """The checked value; a fence of ``` around it is no harm. Raises Misfit."""
        text = text.strip()
        fenced = _FENCED.fullmatch(text)
        try:
            value = read_value(fenced[1] if fenced else text, max_chars=MAX_CHARS)
        except Unreadable as exc:
            raise Misfit(str(exc)) from exc
        if self._schema is not None:
            if problem := self._schema.check(value):
                raise Misfit(problem)
            return value
        return self._instance(value)

    def _instance(self, value: Any) -> BaseModel:
        assert self._class is not None
        try:
            return self._class.model_validate(value)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            raise Misfit(f"{'.'.join(map(str, ('$', *first['loc'])))}: {first['msg']}") from exc
