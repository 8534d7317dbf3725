"""Operations of one kind that many callers want at the same time, run as one operation for all of them.

Whoever commits a group of operations asks for it with `joined`. A statement for sixty rows costs little more than one
for a single row, and a budget that sixty reservations have to fit into is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from runtime_core.errors import StoreError
from runtime_core.stores.scope import ScopedOp, in_scopes, scope_ids_of
from runtime_core.stores.sql import Op, OpFactory

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

_MOST_ROWS = 64


class Apart(StoreError):
    """These operations cannot be one. Whoever runs a group then runs it `apart`; no caller sees this."""


@dataclass(slots=True, eq=False)
class Joint(Generic[I, T]):
    """The factory of an operation for one `item`.

    `together` is the operation for any number of them, whose results are in their order; it may raise Apart for more
    than one. `scope_id` is whose rows it touches.
    """

    together: Callable[[Sequence[I]], Op[Sequence[T]]]
    item: I
    scope_id: str

    @property
    def scope_ids(self) -> tuple[str]:
        return (self.scope_id,)

    def __call__(self) -> Op[T]:
        [result] = yield from self.together((self.item,))
        return result


@dataclass(frozen=True, slots=True)
class Share:
    """An operation for the `places` of a group, with a result for each of them."""

    op_factory: OpFactory[Sequence[Any]]
    places: Sequence[int]


def joined(group: Sequence[OpFactory[Any]]) -> list[Share]:
    """What has to be run for the group, in the order in which each kind first appears.

    Callers wait for their answers, so an operation depends on another one of its group only where somebody was
    cancelled and went on. If that other one now comes too late, it raises, and the group runs `apart`.
    """
    shares: dict[object, list[int]] = {}
    for place, op_factory in enumerate(group):
        kind = cast("Joint[Any, Any]", op_factory).together if isinstance(op_factory, Joint) else place
        shares.setdefault(kind, []).append(place)
    return [_share(group, places) for places in shares.values()]


def apart(group: Sequence[OpFactory[Any]]) -> list[Share]:
    """The group in its own order, each operation by itself."""
    return [Share(ScopedOp(partial(_alone, each), scope_ids_of(each)), (place,)) for place, each in enumerate(group)]


def _share(group: Sequence[OpFactory[Any]], places: Sequence[int]) -> Share:
    first = group[places[0]]
    if not isinstance(first, Joint):
        return Share(ScopedOp(partial(_alone, first), scope_ids_of(first)), places)
    joint = cast("Joint[Any, Any]", first)
    own = [cast("Joint[Any, Any]", group[place]) for place in places]
    op_factory = in_scopes((each.scope_id for each in own), lambda: joint.together([each.item for each in own]))
    return Share(op_factory, places)


def together(shares: Sequence[Share]) -> Op[list[Any]]:
    """A group as one operation: the result of each, in order."""
    said: list[Sequence[Any]] = []
    for share in shares:
        said.append((yield from share.op_factory()))  # noqa: PERF401 - a generator cannot yield inside one
    return in_order(shares, said)


def in_order(shares: Sequence[Share], said: Sequence[Sequence[Any]]) -> list[Any]:
    """The result of each operation of a group, of what its shares `said`."""
    results: dict[int, Any] = {}
    for share, own in zip(shares, said, strict=True):
        results.update(zip(share.places, own, strict=True))
    return [results[place] for place in range(len(results))]


def by_rows(items: Sequence[I]) -> Iterator[Sequence[I]]:
    """In pieces for statements of many rows: of few sizes, so that databases see few texts."""
    begin = 0
    while begin < len(items):
        size = min(_MOST_ROWS, 1 << (len(items) - begin).bit_length() - 1)
        yield items[begin : begin + size]
        begin += size


def _alone(op_factory: OpFactory[Any]) -> Op[Sequence[Any]]:
    return ((yield from op_factory()),)
