"""Which scope a manager works in. Every store method takes one; the samples name it once, or not at all."""

from __future__ import annotations

from collections import OrderedDict

from agent_runtime.errors import ScopeMismatchError
from runtime_core.ids import check_scope_id

DEFAULT_SCOPE = "default"
MOST_REMEMBERED = 10_000


def place(scope_id: str, name: str) -> str:
    """A name within a scope as one text; the length keeps two scopes apart whatever is in their names."""
    return f"{len(scope_id)}:{scope_id}:{name}"


def scope_of(place: str) -> tuple[str, str]:
    """The scope and the name of a place."""
    length, _, rest = place.partition(":")
    return rest[: int(length)], rest[int(length) + 1 :]


class Scopes:
    """The scope of a manager.

    One that is bound to a scope never leaves it. One that is not takes the scope of each record that it makes, and
    finds those again by their ids; ids that it did not make are looked for in the scope `default`.
    """

    def __init__(self, bound_to: str | None = None) -> None:
        self.bound_to = None if bound_to is None else check_scope_id(bound_to)
        self._made: OrderedDict[str, str] = OrderedDict()

    def bound(self, scope_id: str) -> Scopes:
        """For a manager of that scope alone. Raises ScopeMismatchError if this one is bound to another."""
        self.for_new(scope_id)
        return Scopes(scope_id)

    def for_new(self, wanted: str | None) -> str:
        """The scope of a record that is being made. Raises ScopeMismatchError."""
        if self.bound_to is None:
            return wanted or DEFAULT_SCOPE
        if wanted is not None and wanted != self.bound_to:
            raise ScopeMismatchError(
                f"This manager is bound to the scope {self.bound_to!r}; make one for {wanted!r} with for_scope() "
                "of a manager that is not bound.",
                scope_id=wanted,
                bound_to=self.bound_to,
            )
        return self.bound_to

    def all_of_them(self, what: str) -> None:
        """Raises ScopeMismatchError for `what` is done to all scopes, if the manager is bound to one."""
        if self.bound_to is not None:
            raise ScopeMismatchError(
                f"{what} is for all scopes, and this manager is bound to {self.bound_to!r}; call another one.",
                bound_to=self.bound_to,
            )

    def remember(self, record_id: str, scope_id: str) -> None:
        if self.bound_to is None and scope_id != DEFAULT_SCOPE:
            self._made[record_id] = scope_id
            if len(self._made) > MOST_REMEMBERED:
                self._made.popitem(last=False)

    def of(self, record_id: str) -> str:
        """The scope to look for a record in."""
        return self.bound_to or self._made.get(record_id, DEFAULT_SCOPE)
