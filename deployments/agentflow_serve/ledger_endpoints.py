"""`GET /v1/ledger/usage`, `/attempts` and `/budgets`: what the caller's own scope has spent, and what is left to it.

The scope is the caller's, as the edge has it, and never part of a request; a key sees all of its scope. The documents
are those of `agentflow ledger ... --json`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import FastAPI, Query, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent_runtime.ledger.attempts import AttemptPage
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.finds import EventFilter
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.standing import BudgetFilter, BudgetPage
from agent_runtime.ledger.usage import GroupBy, GroupCursor, GroupPage
from agentflow_serve.call import caller_scope
from agentflow_serve.durations import FORMS, moment_of
from agentflow_serve.errors import RETRY_AFTER_S, PredictorError, RequestRefused
from agentflow_serve.ledger_documents import (
    MOST_AT_ONCE,
    attempt_cursor,
    attempts_document,
    budget_cursor,
    budgets_document,
    group_cursor,
    usage_document,
)
from runtime_core.call_log.finds import Cursor
from runtime_core.context import CallerId
from runtime_core.errors import AgentflowError

PATH = "/v1/ledger"
T = TypeVar("T")


class LedgerDoor(Protocol):
    """The ledgers of every scope, one at a time."""

    async def usage(
        self, *, scope_id: str, which: EventFilter, by: GroupBy, after: GroupCursor | None, limit: int
    ) -> GroupPage: ...

    async def attempts(self, *, scope_id: str, which: EventFilter, after: Cursor | None, limit: int) -> AttemptPage: ...

    async def budgets(self, *, scope_id: str, which: BudgetFilter, after: Account | None, limit: int) -> BudgetPage: ...


def _moment(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    # A `+` of an offset that nobody escaped arrives as a space.
    found = moment_of(text.replace(" ", "+"), now=datetime.now(UTC))
    if found is None:
        raise ValueError(f"write {FORMS}, such as 2h, or a time in ISO 8601")
    return found


def _ended(state: EventState) -> EventState:
    if state is EventState.NOTED:
        raise ValueError("attempts are reserved, settled, released or unknown")
    return state


Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Question(BaseModel):
    """The query of a request; anything else in it is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    principal: CallerId | None = None
    role: CallerId | None = None
    run: CallerId | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 100
    after: str | None = None


class _Events(_Question):
    since: Moment | None = None
    until: Moment | None = None

    def filter(self, state: EventState | None = None) -> EventFilter:
        return EventFilter(
            state=state,
            principal_id=self.principal,
            role=self.role,
            run_id=self.run,
            since=self.since,
            until=self.until,
        )


class _Usage(_Events):
    by: GroupBy = GroupBy.ROLE


class _Attempts(_Events):
    status: Annotated[EventState, AfterValidator(_ended)] | None = None


class _Budgets(_Question):
    runs: bool = False


Text = Annotated[str | None, Query()]
"""For the description of the API; what a parameter means is for _Question, whose no is a 400 in our form."""


def register_ledger_endpoints(app: FastAPI, ledger: LedgerDoor) -> None:
    """Add the routes of the ledger to a predictor's application."""

    async def usage(
        request: Request,
        by: Text = None,
        principal: Text = None,
        role: Text = None,
        run: Text = None,
        since: Text = None,
        until: Text = None,
        limit: Text = None,
        after: Text = None,
    ) -> dict[str, Any]:
        """What was used, for each role, principal, run, model, day or hour."""
        asked, scope_id = _asked(_Usage, request), caller_scope()
        place = _place(asked.after, lambda text: group_cursor(text, asked.by))
        try:
            page = await ledger.usage(
                scope_id=scope_id, which=asked.filter(), by=asked.by, after=place, limit=asked.limit
            )
        except AgentflowError as exc:
            raise _away() from exc
        return usage_document(scope_id, asked.filter(), asked.by, page)

    async def attempts(
        request: Request,
        status: Text = None,
        principal: Text = None,
        role: Text = None,
        run: Text = None,
        since: Text = None,
        until: Text = None,
        limit: Text = None,
        after: Text = None,
    ) -> dict[str, Any]:
        """Attempts at models, the newest first."""
        asked, scope_id = _asked(_Attempts, request), caller_scope()
        place = _place(asked.after, attempt_cursor)
        try:
            page = await ledger.attempts(
                scope_id=scope_id, which=asked.filter(asked.status), after=place, limit=asked.limit
            )
        except AgentflowError as exc:
            raise _away() from exc
        return attempts_document(scope_id, page)

    async def budgets(
        request: Request,
        principal: Text = None,
        role: Text = None,
        run: Text = None,
        runs: Text = None,
        limit: Text = None,
        after: Text = None,
    ) -> dict[str, Any]:
        """How the budgets stand; those of single runs only with `runs=true`, or `run`."""
        asked, scope_id = _asked(_Budgets, request), caller_scope()
        which = BudgetFilter(asked.principal, asked.role, asked.run, asked.runs)
        place = _place(asked.after, lambda text: budget_cursor(text, scope_id))
        try:
            page = await ledger.budgets(scope_id=scope_id, which=which, after=place, limit=asked.limit)
        except AgentflowError as exc:
            raise _away() from exc
        return budgets_document(scope_id, page)

    for name, route in (("usage", usage), ("attempts", attempts), ("budgets", budgets)):
        app.add_api_route(f"{PATH}/{name}", route, methods=["GET"], response_model=None)


Asked = TypeVar("Asked", bound=_Question)


def _asked(kind: type[Asked], request: Request) -> Asked:
    """Raises RequestRefused (400) for a parameter that is wrong, unknown or given twice."""
    given = request.query_params.multi_items()
    query = dict(given)
    if len(query) < len(given):
        raise _bad("Give each parameter once.")
    try:
        return kind.model_validate(query)
    except ValidationError as exc:
        problem = exc.errors()[0]
        name = ascii(str(problem["loc"][0])[:40]) if problem["loc"] else "query"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise _bad(f"There is no parameter {name} here; there are {known}.") from exc
        raise _bad(f"The parameter {name} is wrong: {problem['msg'].removeprefix('Value error, ')}.") from exc


def _place(text: str | None, read: Callable[[str], T]) -> T | None:
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as exc:
        raise _bad("No page of such a request has given this `after` as its `next`.") from exc


def _bad(message: str) -> PredictorError:
    return RequestRefused(message, status=400, code="bad_input")


def _away() -> PredictorError:
    message = "The ledger cannot be reached now; try again."
    return RequestRefused(message, status=503, code="unavailable", retry_after=RETRY_AFTER_S)
