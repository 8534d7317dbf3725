"""What a ledger says, as tables for people. Pure: records go in, what rich prints comes out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from agent_runtime.ledger.amounts import MICRO
from agent_runtime.ledger.usage import GroupBy, UsageGroup, UsageSums
from agentflow_serve.commands.stores import printable, utc
from agentflow_serve.ledger_documents import group_name

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from agent_runtime.ledger.attempts import AttemptLine
    from agent_runtime.ledger.standing import BudgetStanding, LimitStanding

BAR_CELLS = 12
BARS = ("share", "taken")
"""The columns that have one."""
SCREEN_WIDTH = 100
PIPE_WIDTH = 1000
"""Columns of a table that no terminal shows: so wide that nothing is folded."""


def show(*what: RenderableType) -> None:
    """Print tables to the standard output."""
    from rich.console import Console

    width = max(Console().width, SCREEN_WIDTH) if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for each in what:
        console.print(each)


def usage_table(by: GroupBy, total: UsageSums, groups: Sequence[UsageGroup], *, more: bool) -> Table:
    """A line for each group, one for all that are not shown, and the total."""
    table = _table(
        by.value, "calls", "input", "output", "cost", "share", "of which", right=("calls", "input", "output", "cost")
    )
    in_money = _weight(total, in_money=True) > 0
    whole = _weight(total, in_money=in_money)

    def add(name: str, sums: UsageSums) -> None:
        table.add_row(_text(name), *_sums(sums), bar(_share(_weight(sums, in_money=in_money), whole)), notes(sums))

    for each in groups:
        add(group_name(by, each.part) or "-", each.sums)
    if more:
        rest = total
        for each in groups:
            rest -= each.sums
        add("(others)", rest)
    table.add_section()
    table.add_row("total", *_sums(total), "", notes(total))
    return table


def notes(sums: UsageSums) -> str:
    """What the other numbers of a line leave out, or only guess."""
    parts: list[str] = []
    if sums.open:
        parts.append(f"{sums.open} open ({_at_most(sums.open_tokens, sums.open_cost_micro)})")
    if sums.unknown:
        lapsed = f", {sums.lapsed} lapsed" if sums.lapsed else ""
        parts.append(f"{sums.unknown} unknown{lapsed} ({_at_most(sums.unknown_tokens, sums.unknown_cost_micro)})")
    if sums.holds:
        parts.append(f"{sums.holds} runs hold {sums.held_tokens:,} tokens, {money(sums.held_cost_micro)}")
    parts += [
        f"{count} {what}"
        for count, what in (
            (sums.estimated, "estimated"),
            (sums.unpriced, "without a price"),
            (sums.released, "released"),
        )
        if count
    ]
    return "; ".join(parts)


def attempts_table(lines: Sequence[AttemptLine]) -> Table:
    table = _table(
        *("started (UTC)", "status", "role", "model", "node", "run", "input", "output", "cost", "took", "error"),
        right=("input", "output", "cost", "took"),
    )
    for line in lines:
        mark = "~" if line.estimated else ""
        table.add_row(
            moment(line.started_at),
            f"{line.status.value}{' (lapsed)' if line.lapsed and line.status.value == 'unknown' else ''}",
            *(_text(name or "-") for name in (line.role, f"{line.provider}/{line.model}", line.node, line.run_id)),
            *("?" if count is None else f"{mark}{count:,}" for count in (line.input_tokens, line.output_tokens)),
            _cost_of(line),
            "-" if line.duration_s is None else f"{line.duration_s:.2f} s",
            _text(line.error or ""),
        )
    return table


def budgets_table(budgets: Sequence[BudgetStanding]) -> Table:
    """A line for each limit of each budget."""
    table = _table(
        *("for", "limit", "taken", "spent", "reserved", "left", "of", "until (UTC)"),
        right=("spent", "reserved", "left", "of"),
    )
    for budget in budgets:
        for limit in budget.limits:
            taken = None if limit.spent is None else limit.spent + (limit.reserved or 0)
            table.add_row(
                _text(whose(budget)),
                limit.limit,
                "" if taken is None else f"{bar(_share(taken, limit.most))} {_percent(taken, limit.most)}",
                *(amount(limit, value) for value in (limit.spent, limit.reserved, limit.left, limit.most)),
                "" if limit.resets_at is None else moment(limit.resets_at),
            )
    return table


def whose(budget: BudgetStanding) -> str:
    """`the scope`, or the parts of it that a budget is for."""
    parts = (("principal", budget.principal_id), ("role", budget.role), ("run", budget.run_id))
    return ", ".join(f"{what} {name}" for what, name in parts if name is not None) or "the scope"


def amount(limit: LimitStanding, value: int | None) -> str:
    """In the unit that people use for what a limit measures."""
    if value is None:
        return "-"
    match limit.measure:
        case "cost_micro":
            return money(value)
        case "runtime_ms":
            return f"{value / 1000:,.1f} s"
        case _:
            return f"{value:,}"


def money(micro: int) -> str:
    """Dollars, exactly, with two to six places."""
    whole, rest = divmod(abs(micro), MICRO)
    places = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${whole:,}.{places}"


def bar(share: float) -> str:
    """`share` between 0 and 1; what is more than nothing has a cell, and only what is full has all."""
    cells = min(BAR_CELLS, int(share * BAR_CELLS) or int(share > 0))
    full, empty = ("█", "░") if _draws_blocks() else ("#", ".")
    return full * cells + empty * (BAR_CELLS - cells)


def moment(when: datetime) -> str:
    return utc(when.timestamp())


def _draws_blocks() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def _table(*columns: str, right: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        whole = column in right or column in BARS
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=whole)
    return table


def _text(words: str) -> str:
    return printable(words).replace("\n", " ").replace("\t", " ")


def _sums(sums: UsageSums) -> tuple[str, str, str, str]:
    mark = "~" if sums.estimated else ""
    lacks = "+" if sums.unknown or sums.unpriced else ""
    return (
        f"{sums.requests:,}",
        f"{mark}{sums.input_tokens:,}{lacks}",
        f"{mark}{sums.output_tokens:,}{lacks}",
        f"{mark}{money(sums.cost_micro)}{lacks}",
    )


def _weight(sums: UsageSums, *, in_money: bool) -> int:
    """What shares are of: money, or tokens where nothing has a price; what may have been taken counts."""
    if in_money:
        return sums.cost_micro + sums.open_cost_micro + sums.unknown_cost_micro
    return sums.tokens + sums.open_tokens + sums.unknown_tokens


def _share(part: int, whole: int) -> float:
    return min(1.0, part / whole) if whole else float(part > 0)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part // whole if whole else 100 * (part > 0):>4} %"


def _at_most(tokens: int, cost_micro: int) -> str:
    return f"at most {tokens:,} tokens, {money(cost_micro)}"


def _cost_of(line: AttemptLine) -> str:
    mark = "~" if line.estimated else ""
    if line.cost_micro is not None:
        return mark + money(line.cost_micro)
    if line.status.value in ("reserved", "unknown") and line.counted_cost_micro:
        return f"<= {money(line.counted_cost_micro)}"
    return "-" if line.status.value == "released" else "?"
