"""`GET /v1/ledger/usage`, `/attempts` and `/budgets`: what the caller's own scope has spent, and what is left to it.

The scope is the caller's, as the edge has it, and never part of a request; a key sees all of its scope. The documents
are those of `agentflow ledger ... --json`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

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
    attempt_cursor,
    attempts_document,
    budget_cursor,
    budgets_document,
    group_cursor,
    usage_document,
)
from agentflow_serve.query_routes import PageQuery, page_after, query_router
from runtime_core.call_log.finds import Cursor
from runtime_core.context import CallerId
from runtime_core.errors import AgentflowError

PATH = "/v1/ledger"


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


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "description": f"{FORMS}, such as 2h, or a time in ISO 8601"}),
]


class _Question(PageQuery):
    principal: CallerId | None = None
    role: CallerId | None = None
    run: CallerId | None = None


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


def register_ledger_endpoints(app: FastAPI, ledger: LedgerDoor) -> None:
    """Add the routes of the ledger to a predictor's application."""

    async def usage(asked: Annotated[_Usage, Query()]) -> dict[str, Any]:
        """What was used, for each role, principal, run, model, day or hour."""
        scope_id, which = caller_scope(), asked.filter()
        place = page_after(asked.after, lambda text: group_cursor(text, asked.by))
        try:
            page = await ledger.usage(scope_id=scope_id, which=which, by=asked.by, after=place, limit=asked.limit)
        except AgentflowError as exc:
            raise _away() from exc
        return usage_document(scope_id, which, asked.by, page)

    async def attempts(asked: Annotated[_Attempts, Query()]) -> dict[str, Any]:
        """Attempts at models, the newest first."""
        scope_id, which = caller_scope(), asked.filter(asked.status)
        place = page_after(asked.after, attempt_cursor)
        try:
            page = await ledger.attempts(scope_id=scope_id, which=which, after=place, limit=asked.limit)
        except AgentflowError as exc:
            raise _away() from exc
        return attempts_document(scope_id, page)

    async def budgets(asked: Annotated[_Budgets, Query()]) -> dict[str, Any]:
        """How the budgets stand; those of single runs only with `runs=true`, or `run`."""
        scope_id = caller_scope()
        which = BudgetFilter(asked.principal, asked.role, asked.run, asked.runs)
        place = page_after(asked.after, lambda text: budget_cursor(text, scope_id))
        try:
            page = await ledger.budgets(scope_id=scope_id, which=which, after=place, limit=asked.limit)
        except AgentflowError as exc:
            raise _away() from exc
        return budgets_document(scope_id, page)

    routes = query_router()
    for name, route in (("usage", usage), ("attempts", attempts), ("budgets", budgets)):
        routes.add_api_route(f"{PATH}/{name}", route, methods=["GET"], response_model=None)
    app.include_router(routes)


def _away() -> PredictorError:
    message = "The ledger cannot be reached now; try again."
    return RequestRefused(message, status=503, code="unavailable", retry_after=RETRY_AFTER_S)
