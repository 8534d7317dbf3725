"""What stands beside the rows of a local feature store: `group.yaml` in a group's folder, and the files of views."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

ColumnType = Literal["string", "integer", "number", "boolean", "timestamp", "json", "embedding"]
Metric = Literal["cosine", "dot", "l2"]

SCORE = "score"
_OURS = frozenset({"filename", "file_row_number"})
"""Columns that DuckDB adds to what it reads from files."""


def _is_free(name: str) -> str:
    if name in _OURS:
        raise PydanticCustomError("reserved", "no column may be called '{name}'", {"name": name})
    return name


Column = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$"), AfterValidator(_is_free)]
Dimensions = Annotated[int, Field(strict=True, ge=1, le=8192)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbeddingColumn(_Frozen):
    """The column that a vector search compares. With `l2` the score is 1 / (1 + distance)."""

    column: Column
    dimensions: Dimensions
    metric: Metric = "cosine"


class GroupSchema(_Frozen):
    """`group.yaml`. A row is known by its `keys`; `event_time` is the column that says since when it holds.

    A group without `event_time` has one row per key, the one written last, and cannot be read as of a time. Columns
    of type `json` hold JSON text.
    """

    keys: Annotated[tuple[Column, ...], Field(min_length=1)]
    columns: Annotated[dict[Column, ColumnType], Field(min_length=1)]
    event_time: Column | None = None
    embedding: EmbeddingColumn | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> GroupSchema:
        for key in self.keys:
            self._check(key, {"string", "integer", "boolean"}, "a key is a string, an integer or a boolean")
        if self.event_time is not None:
            self._check(self.event_time, {"timestamp"}, "the event time is a timestamp")
        vectors = [column for column, kind in self.columns.items() if kind == "embedding"]
        if vectors != ([self.embedding.column] if self.embedding else []):
            _refuse("the only column of type embedding is the one that `embedding` names")
        if self.embedding is not None and SCORE in self.columns:
            _refuse(f"a group with an embedding has no column '{SCORE}': hits carry one")
        return self

    def _check(self, column: str, kinds: set[str], rule: str) -> None:
        if column not in self.columns:
            _refuse(f"'{column}' is not among the columns")
        if self.columns[column] not in kinds:
            _refuse(f"{rule}, and '{column}' is {self.columns[column]}")


class ViewSchema(_Frozen):
    """`views/<name>_v<version>.yaml`: columns of a group, under a name of their own."""

    group: str
    features: Annotated[tuple[Column, ...], Field(min_length=1)]


def _refuse(sentence: str) -> None:
    raise PydanticCustomError("group", "{sentence}", {"sentence": sentence})
