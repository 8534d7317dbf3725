"""What a run has used, summed up: for the whole run, for each role and for each node."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from runtime_core.stores.sql import Op, Sql


class Totals(BaseModel):
    """Sums over attempts. `calls` counts the calls they belong to; an attempt is still `open` while it is reserved.

    `cost_micro` is in millionths of a dollar, over the attempts whose price is known; `unpriced` counts the
    settled and unknown attempts that are missing in it, `estimated` those whose tokens we counted ourselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = 0
    attempts: int = 0
    open: int = 0
    settled: int = 0
    released: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: int = 0
    cost_micro: int = 0
    unpriced: int = 0


class RunTotals(Totals):
    """A run's sums, and the same for each role and for each node; attempts outside a node are in no part.

    A call that fell back to another role is a call of both, so the parts' `calls` may add up to more.
    """

    by_role: dict[str, Totals]
    by_node: dict[str, Totals]


_SUMS = (
    "COUNT(DISTINCT call_id), COUNT(*),"
    " COALESCE(SUM(CASE WHEN status = 'reserved' THEN 1 ELSE 0 END), 0),"
    " COALESCE(SUM(CASE WHEN status = 'settled' THEN 1 ELSE 0 END), 0),"
    " COALESCE(SUM(CASE WHEN status = 'released' THEN 1 ELSE 0 END), 0),"
    " COALESCE(SUM(CASE WHEN status = 'unknown' THEN 1 ELSE 0 END), 0),"
    " COALESCE(SUM(input_tokens), 0), COALESCE(SUM(output_tokens), 0),"
    " COALESCE(SUM(cached_tokens), 0), COALESCE(SUM(reasoning_tokens), 0),"
    " COALESCE(SUM(usage_estimated), 0), COALESCE(SUM(cost_micro), 0),"
    " COALESCE(SUM(CASE WHEN status IN ('settled', 'unknown') AND cost_micro IS NULL THEN 1 ELSE 0 END), 0)"
)
_OF_RUN = " FROM calls WHERE scope_id = ? AND run_id = ?"
_WHOLE = "SELECT " + _SUMS + _OF_RUN
_BY_ROLE = "SELECT role, " + _SUMS + _OF_RUN + " GROUP BY role ORDER BY role"
_BY_NODE = "SELECT node, " + _SUMS + _OF_RUN + " AND node IS NOT NULL GROUP BY node ORDER BY node"
_NAMES = tuple(Totals.model_fields)


def totals(scope_id: str, run_id: str) -> Op[RunTotals]:
    """The sums of one run; zeros for a run without attempts."""
    run = (scope_id, run_id)
    [whole] = yield Sql(_WHOLE, run)
    roles = yield Sql(_BY_ROLE, run)
    nodes = yield Sql(_BY_NODE, run)
    return RunTotals(
        **_named(whole),
        by_role={name: Totals(**_named(sums)) for name, *sums in roles},
        by_node={name: Totals(**_named(sums)) for name, *sums in nodes},
    )


def _named(sums: tuple[Any, ...] | list[Any]) -> dict[str, Any]:
    return {name: int(value) for name, value in zip(_NAMES, sums, strict=True)}
