"""Whose rows an operation may touch: it says so beside its SQL, and PostgreSQL holds it to that.

    await database.run(in_scope("tenant-1", lambda: deposit("tenant-1", 5)))

That is the second wall between tenants. The first is the SQL itself, which names the scope in every statement; this
one stands where such a statement is wrong. On PostgreSQL an operation that says nothing sees and writes no row of a
table that belongs to scopes (`row_security`); SQLite and memory, of one machine or process, do not look.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from runtime_core.stores.sql import Op, OpFactory

T = TypeVar("T")


class ScopedOp(Generic[T]):
    """An OpFactory for the rows of these scopes; None is all of them.

    Whatever else is an OpFactory may have such a `scope_ids` as well.
    """

    __slots__ = ("_op_factory", "scope_ids")

    def __init__(self, op_factory: OpFactory[T], scope_ids: tuple[str, ...] | None) -> None:
        self._op_factory = op_factory
        self.scope_ids = scope_ids

    def __call__(self) -> Op[T]:
        return self._op_factory()


def in_scope(scope_id: str, op_factory: OpFactory[T]) -> ScopedOp[T]:
    """For the rows of one scope."""
    return ScopedOp(op_factory, (scope_id,))


def in_scopes(scope_ids: Iterable[str], op_factory: OpFactory[T]) -> ScopedOp[T]:
    """For what several scopes want together."""
    return ScopedOp(op_factory, tuple(sorted(set(scope_ids))))


def everywhere(op_factory: OpFactory[T]) -> ScopedOp[T]:
    """For the operator's work on the rows of all scopes, such as forgetting; never for a tenant's request."""
    return ScopedOp(op_factory, None)


def in_scope_or_everywhere(scope_id: str | None, op_factory: OpFactory[T]) -> ScopedOp[T]:
    """`in_scope`, or `everywhere` for an operator who names none."""
    return everywhere(op_factory) if scope_id is None else in_scope(scope_id, op_factory)


def scope_ids_of(op_factory: OpFactory[Any]) -> tuple[str, ...] | None:
    """The scopes that it may touch, None for all; an operation that says nothing may touch none."""
    return getattr(op_factory, "scope_ids", ())
