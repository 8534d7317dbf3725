"""One PostgreSQL connection that runs operations; every error of the driver leaves it as Interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from runtime_core.errors import StoreError, StoreValueError
from runtime_core.stores.dialect import POSTGRES
from runtime_core.stores.postgres_driver import DriverConnection
from runtime_core.stores.postgres_errors import DRIVER_ERRORS, Interrupted, Trouble, interruption
from runtime_core.stores.qmarks import numbered
from runtime_core.stores.row_security import set_local, setting_of
from runtime_core.stores.sql import OpFactory, Rows, Sql, SqlValue, drive_async

T = TypeVar("T")

MAX_STATEMENTS = 1000


@dataclass(frozen=True, slots=True)
class Form:
    """A statement as PostgreSQL wants it.

    `times` are the positions of parameters that are points in time; `alone` is one of the dialect's statements for
    a transaction of its own.
    """

    text: str
    times: tuple[int, ...]
    alone: bool


class Session:
    """Borrows `raw` for a while; once it is `broken` it is of no further use.

    `forms` is shared by the sessions of one database, so that each text is translated once.
    """

    def __init__(self, raw: DriverConnection, forms: dict[str, Form], *, timeout_s: float, location: str) -> None:
        self._raw = raw
        self._forms = forms
        self._timeout_s = timeout_s
        self._location = location
        self._reading = False
        self._alone = False
        self._setting = ""
        self.broken: StoreError | None = None
        self.round_trip_s = 0.0

    async def begin(self, *, first: OpFactory[Any], reading: bool, alone: bool = False) -> None:
        """Start a serializable transaction, or one on a snapshot, with that operation. `alone`: with no other one.

        The server gives up on a statement by itself, and on us should we vanish in the middle.
        """
        self._reading = reading
        self._alone = alone
        level = "REPEATABLE READ READ ONLY" if reading else "SERIALIZABLE"
        patience_ms = max(1, int(self._timeout_s * 800))
        scopes = self._scopes(setting_of(first))
        clock = asyncio.get_running_loop().time
        began = clock()
        await self._execute(
            f"BEGIN ISOLATION LEVEL {level}; SET LOCAL statement_timeout = {patience_ms};"
            f" SET LOCAL idle_in_transaction_session_timeout = {max(30_000, 3 * patience_ms)}; {scopes}"
        )
        self.round_trip_s = clock() - began

    async def run(self, op_factory: OpFactory[T]) -> T:
        """Run an operation inside the open transaction; after an error only rollback() is left to do."""
        setting = setting_of(op_factory)
        if setting != self._setting:
            await self._execute(self._scopes(setting))
        return await drive_async(op_factory(), self._fetch)

    def _scopes(self, setting: str) -> str:
        """The statement that lets the next operation touch the rows of its scopes."""
        try:
            statement = set_local(setting)
        except StoreValueError as error:
            raise Interrupted(Trouble.FAILED, error) from error
        self._setting = setting
        return statement

    async def commit(self) -> None:
        if await self._execute("COMMIT") != "COMMIT":
            error = StoreError(
                "The server rolled a transaction back instead of committing it.", location=self._location
            )
            raise Interrupted(Trouble.FAILED, error)

    async def rollback(self) -> None:
        await self._execute("ROLLBACK")

    async def _execute(self, text: str) -> str:
        try:
            return await self._raw.execute(text, timeout=self._timeout_s)
        except DRIVER_ERRORS as error:
            raise self._interrupted(error) from error

    async def _fetch(self, statement: Sql) -> Rows:
        try:
            form = self._forms.get(statement.text) or await self._learn(statement)
            if form.alone and not self._alone:
                raise Interrupted(Trouble.FAILED, StoreError("This statement needs a transaction of its own."))
            params = _with_times(statement.params, form.times) if form.times else statement.params
            if statement.counts:
                status = await self._raw.execute(form.text, *params, timeout=self._timeout_s)
                return [(int(status.rpartition(" ")[2]),)]
            records = await self._raw.fetch(form.text, *params, timeout=self._timeout_s)
        except DRIVER_ERRORS as error:
            raise self._interrupted(error) from error
        return [_row(record) for record in records]

    def _interrupted(self, error: BaseException) -> Interrupted:
        interrupted = interruption(error, location=self._location, reading=self._reading)
        if interrupted.trouble is Trouble.GONE:
            self.broken = interrupted.error
        return interrupted

    async def _learn(self, statement: Sql) -> Form:
        text = numbered(statement.text)
        times: tuple[int, ...] = ()
        if not all(isinstance(value, str | bytes) for value in statement.params):
            prepared = await self._raw.prepare(text, timeout=self._timeout_s)
            types = [each.name for each in prepared.get_parameters()]
            times = tuple(place for place, name in enumerate(types) if name == "timestamptz")
        if len(self._forms) >= MAX_STATEMENTS:
            self._forms.clear()
        form = self._forms[statement.text] = Form(text, times, alone=statement.text in POSTGRES.alone)
        return form


def _with_times(params: Sequence[SqlValue], times: tuple[int, ...]) -> list[Any]:
    converted: list[Any] = list(params)
    for place in times:
        if converted[place] is not None:
            converted[place] = _datetime_of(converted[place])
    return converted


def _datetime_of(seconds: Any) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise Interrupted(Trouble.FAILED, StoreValueError("A parameter cannot be stored: it is no time.")) from error


def _number_of(value: Decimal) -> int | float:
    """A sum of integers is a numeric, and an integer for us."""
    return int(value) if value == value.to_integral_value() else float(value)


_PLAIN: dict[type, Callable[[Any], Any]] = {Decimal: _number_of, datetime: datetime.timestamp, bool: int}


def _row(record: Iterable[Any]) -> tuple[Any, ...]:
    return tuple([value if (plain := _PLAIN.get(value.__class__)) is None else plain(value) for value in record])
