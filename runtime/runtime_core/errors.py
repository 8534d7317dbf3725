"""The errors of the leaf package; every runtime package grows its own tree from the same root.

AgentflowError
├── IdentityError (a ValueError)      an id, a name or a trace id is not in its one legal form
├── NodeLostError                     the process that ran a node died; whether it did its work is not known
├── DispatchRefusedError              a node was not taken on: its queue is full, or it is not there
├── DocumentInvalid (a ValueError)    a file of settings, or the same document inline, is not what it should be
└── StoreError                        a store could not do what it was asked, or was asked something wrong
    ├── StoreUnavailableError         no answer now; try again, with the same ids if `outcome_unknown`
    ├── StoreFullError                no room left: the disk, or a scope's quota
    │   └── StoreQuotaError           a scope keeps as many things of a kind as it may
    ├── StoreCorruptError             the stored bytes are damaged; nothing repairs them silently
    ├── StoreLocationError            an SQLite file was opened on another node than its owner's
    ├── StoreSchemaError              the database was written by a newer version of this code
    ├── StoreConflictError            the stored version, or a unique key, is not what the caller expected
    ├── StoreValueError (a ValueError)  the value itself can never be stored
    └── StoreUrlError (a ValueError)    the address of a store is not understood

Ray pickles errors. Each class takes its message first and its facts as optional keywords, kept as plain
attributes: `BaseException` then carries both through pickle and copy without further code.
"""

from __future__ import annotations

from typing import Literal


class AgentflowError(Exception):
    """Root of every error that the runtime packages raise on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class IdentityError(AgentflowError, ValueError):
    """An id is not canonical. `what` names the kind of id; pydantic turns this into a validation error."""

    def __init__(self, message: str, *, what: str | None = None) -> None:
        super().__init__(message)
        self.what = what


class NodeLostError(AgentflowError):
    """`node` ran in a process that died before it answered."""

    def __init__(self, message: str, *, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


class DispatchRefusedError(AgentflowError):
    """Nothing was started. `retry_after` is in seconds."""

    def __init__(
        self,
        message: str,
        *,
        code: Literal["overloaded", "unavailable"] = "unavailable",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code: Literal["overloaded", "unavailable"] = code
        self.retry_after = retry_after


class DocumentInvalid(AgentflowError, ValueError):
    """`problems` are sentences, each with its place; `path` is the file, None for data."""

    def __init__(self, message: str, *, path: str | None = None, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.problems = problems


class StoreError(AgentflowError):
    """A store failed. `location` says which one, without credentials."""

    def __init__(self, message: str, *, location: str | None = None) -> None:
        super().__init__(message)
        self.location = location


class StoreUnavailableError(StoreError):
    """The store cannot answer now. With `outcome_unknown` the write may or may not be stored."""

    def __init__(self, message: str, *, location: str | None = None, outcome_unknown: bool = False) -> None:
        super().__init__(message, location=location)
        self.outcome_unknown = outcome_unknown


class StoreFullError(StoreError):
    """No room for the write. `limit` is in bytes where a quota was reached, None where the disk is full."""

    def __init__(self, message: str, *, location: str | None = None, limit: int | None = None) -> None:
        super().__init__(message, location=location)
        self.limit = limit


class StoreQuotaError(StoreFullError):
    """`limit` is a number of things. `retry_after` is in seconds, None where no time makes room."""

    def __init__(
        self,
        message: str,
        *,
        location: str | None = None,
        limit: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, location=location, limit=limit)
        self.retry_after = retry_after


class StoreCorruptError(StoreError):
    """The database is damaged. It stays as it is; restore a backup or recover a copy."""


class StoreLocationError(StoreError):
    """The SQLite file belongs to node `owner`; this process runs on node `here`."""

    def __init__(
        self, message: str, *, location: str | None = None, owner: str | None = None, here: str | None = None
    ) -> None:
        super().__init__(message, location=location)
        self.owner = owner
        self.here = here


class StoreSchemaError(StoreError):
    """The tables of `component` are at version `found`, newer than the `known` one of this code."""

    def __init__(
        self,
        message: str,
        *,
        location: str | None = None,
        component: str | None = None,
        found: int | None = None,
        known: int | None = None,
    ) -> None:
        super().__init__(message, location=location)
        self.component = component
        self.found = found
        self.known = known


class StoreConflictError(StoreError):
    """Somebody else was first. `expected` and `actual` are versions where a version was compared."""

    def __init__(
        self,
        message: str,
        *,
        location: str | None = None,
        expected: int | None = None,
        actual: int | None = None,
    ) -> None:
        super().__init__(message, location=location)
        self.expected = expected
        self.actual = actual


class StoreValueError(StoreError, ValueError):
    """The value can never be stored: not JSON, or `size` bytes where `limit` are allowed."""

    def __init__(
        self, message: str, *, location: str | None = None, size: int | None = None, limit: int | None = None
    ) -> None:
        super().__init__(message, location=location)
        self.size = size
        self.limit = limit


class StoreUrlError(StoreError, ValueError):
    """The address of a store is not understood, or names a backend that is not there."""
