"""`agentflow ledger`: what operators see of what was spent, and the budgets that they set."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Budget, Ledger
from agent_runtime.ledger.declared import declare_budgets
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.usage import GroupBy
from agent_runtime.ledger.writers import SqlLedgerWriter
from agentflow_serve.commands.ledger import GROUPS, STATUSES
from agentflow_serve.commands.ledger_tables import bar, money
from runtime_core.clock import ManualClock
from runtime_core.ids import RandomIds
from runtime_core.stores import open_database
from support.command_line import Ended, agentflow
from support.spending import Spending, some_of_everything


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/s.db"

    async def fill() -> None:
        clock = ManualClock()
        async with open_database(url) as database:
            theirs = Spending(database, clock, scope_id="tenant-2")
            await theirs.attempt(role="llm.secret", model="\x1b[31mred", error="=1+1", cost=None)
            mine = Spending(database, clock)
            await some_of_everything(mine)
            await mine.ledger.set_budget(Budget(max_tokens_total=1300, max_tokens_per_request=500))
            await mine.ledger.set_budget(Budget(run_id="run-9", max_requests_total=3))

    asyncio.run(fill())
    return url


def ledger(*arguments: str) -> Ended:
    return agentflow("ledger", *arguments)


def lines(ended: Ended) -> list[list[str]]:
    """The cells of the lines of a table, without its head and its rules."""
    assert (ended.code, ended.err) == (0, ""), ended
    rows = [[cell for cell in line.strip().split("   ") if cell.strip()] for line in ended.out.splitlines()]
    return [[cell.strip() for cell in row] for row in rows if len(row) > 1][1:]


def document(*arguments: str) -> dict[str, Any]:
    ended = ledger(*arguments, "--json")
    assert (ended.code, ended.err) == (0, ""), ended
    return json.loads(ended.out)


def test_usage_shows_what_is_known_and_marks_what_is_not(store: str):
    unsure = "1 open (at most 200 tokens, $0.002); 1 unknown, 1 lapsed (at most 200 tokens, $0.002)"
    assert lines(ledger("usage", "--store", store)) == [
        ["llm.writer", "4", "~200+", "~100+", "~$0.003+", "█" * 11 + "░", f"{unsure}; 1 estimated; 1 released"],
        ["llm.judge", "1", "100", "50", "$0.0001", "█" + "░" * 11],
        ["total", "5", "~300+", "~150+", "~$0.0031+", f"{unsure}; 1 estimated; 1 released"],
    ]
    first, others, total = lines(ledger("usage", "--store", store, "--by", "principal", "--limit", "1"))
    assert (first[0], first[1], others[0], others[1], total[1]) == ("ann", "3", "(others)", "2", "5")
    assert ledger("usage", "--store", store, "--scope", "nobody").err == (
        "the scope nobody has used nothing there in that time\n"
    )


def test_the_usage_document_has_a_stable_shape_and_goes_on_where_it_ended(store: str):
    first = document("usage", "--store", store, "--by", "model", "--limit", "1")
    assert list(first) == ["scope_id", "since", "until", "by", "total", "groups", "next"]
    assert (first["scope_id"], first["since"], first["by"]) == ("default", None, "model")
    [group] = first["groups"]
    assert list(group) == ["group", *first["total"]] and group["group"] == "sim/sim-large"
    rest = document("usage", "--store", store, "--by", "model", "--after", first["next"])
    assert ([each["group"] for each in rest["groups"]], rest["next"]) == (["sim/sim-small"], None)
    assert rest["total"] == first["total"]
    day = document("usage", "--store", store, "--by", "day", "--since", "2026-01-01", "--until", "2026-01-01T00:00:09Z")
    assert (day["since"], day["total"]["events"]) == ("2026-01-01T00:00:00+00:00", 2)
    assert [each["group"] for each in day["groups"]] == ["2026-01-01"]
    assert document("usage", "--store", store, "--since", "1h")["total"]["events"] == 0


def test_attempts_show_each_call_as_it_ended(store: str):
    shown = lines(ledger("attempts", "--store", store, "--run", "run-2"))
    of_run = ["llm.writer", "sim/sim-large", "draft", "run-2"]
    assert [row[1:] for row in shown] == [
        ["unknown (lapsed)", *of_run, "?", "?", "<= $0.002", "61.00 s", "lease_lapsed"],
        ["settled", *of_run, "~100", "~50", "~$0.0015", "2.00 s"],
    ]
    page = document("attempts", "--store", store, "--status", "settled", "--limit", "2")
    rest = document("attempts", "--store", store, "--status", "settled", "--after", page["next"])
    assert [each["attempt_id"] for each in (*page["attempts"], *rest["attempts"])] == ["att-3", "att-2", "att-1"]
    assert rest["next"] is None
    assert "there are more" in ledger("attempts", "--store", store, "--limit", "1").err


def test_all_attempts_as_csv_run_no_formula_and_a_table_steers_no_terminal(store: str):
    rows = list(csv.DictReader(ledger("attempts", "--store", store, "--csv", "--limit", "1").out.splitlines()))
    assert [row["attempt_id"] for row in rows] == [f"att-{n}" for n in range(6, 0, -1)]
    assert (rows[-1]["cost_micro"], rows[-1]["duration_s"], rows[0]["ended_at"]) == ("1500", "2.0", "")
    [theirs] = csv.DictReader(ledger("attempts", "--store", store, "--scope", "tenant-2", "--csv").out.splitlines())
    assert theirs["error"] == "'=1+1"
    [row] = lines(ledger("attempts", "--store", store, "--scope", "tenant-2"))
    assert "sim/?[31mred" in row and "\x1b" not in "".join(row)


def test_budgets_say_which_apps_disagree_about_them(store: str):
    async def declare(*sources: str) -> None:
        async with open_database(store) as database:
            for source in sources:
                told = [Budget(max_tokens_total=len(source) + sources.index(source))]
                await declare_budgets(database, source, told, clock=ManualClock(), ids=RandomIds())

    asyncio.run(declare("desk", "shop"))
    ended = ledger("budgets", "--store", store)
    assert (ended.code, ended.out != "") == (0, True)
    assert ended.err.startswith("warning: desk and shop declare different budgets for the scope of default: ")
    ledger("budgets", "remove", "--store", store)
    asyncio.run(declare("shop"))  # the other one is gone
    ended = ledger("budgets", "--store", store)
    assert (ended.code, ended.out != "", ended.err) == (0, True, "")


def test_budgets_show_their_windows_and_operators_set_and_remove_them(store: str):
    shown = lines(ledger("budgets", "--store", store))
    assert shown == [
        ["the scope", "max_tokens_per_request", "-", "-", "-", "500"],
        ["the scope", "max_tokens_total", "███████░░░░░", "65 %", "650", "200", "450", "1,300"],
    ]
    assert [each["run_id"] for each in document("budgets", "--store", store, "--runs")["budgets"]] == [None, "run-9"]
    role = ("--store", store, "--role", "llm.writer")
    ended = ledger("budgets", "set", *role, "max_cost_total=0.005", "max_requests_daily=7")
    assert ended.out == "set max_cost_total=0.005, max_requests_daily=7 for role 'llm.writer' of default\n"
    [budget] = document("budgets", *role)["budgets"]
    assert list(budget) == ["principal_id", "role", "run_id", "parent_run_id", "limits"]
    cost = next(limit for limit in budget["limits"] if limit["measure"] == "cost_micro")
    assert cost == {"limit": "max_cost_total", "measure": "cost_micro", "window": "total", "most": 5000} | {
        "spent": 5000,
        "reserved": 2000,
        "left": 0,
        "resets_at": None,
    }
    assert ledger("budgets", "remove", *role).out == "removed the budget for role 'llm.writer' of default\n"
    assert (ledger("budgets", "remove", *role).code, document("budgets", *role)["budgets"]) == (1, [])


def test_a_budget_may_be_set_before_anything_was_served(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/new.db"
    assert ledger("budgets", "set", "--store", url, "max_tokens_daily=10").code == 0

    async def budgets() -> list[Budget]:
        async with open_database(url) as database:
            return await Ledger(SqlLedgerWriter(database)).budgets("default")

    assert asyncio.run(budgets()) == [Budget(max_tokens_daily=10)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("usage", "--store", "sqlite:///absent.db"), "there is no file absent.db"),
        (("usage", "--store", "memory:"), "ends with its process"),
        (("usage", "--since", "yesterday"), "such as 2h"),
        (("usage", "--scope", " x"), "begins or ends with a space"),
        (("usage", "--after", "e30"), "no page has this"),
        (("usage", "--by", "day", "--after", "WyJhIiwxLDFd"), "no page has this"),
        (("attempts", "--json", "--csv"), "not both"),
        (("budgets", "set", "max_tokens_dayly=1"), "there is no limit 'max_tokens_dayly'"),
        (("budgets", "set", "max_tokens_daily=1.5"), "max_tokens_daily: Input should be a valid integer"),
        (("budgets", "set", "max_cost_daily=-1"), "greater than or equal to 0"),
        (("budgets", "set", "max_tokens_daily"), "write each limit once"),
        (("budgets", "set"), "Missing argument"),
        (("budgets", "--principal", " ann"), "begins or ends with a space"),
        (("budgets", "remove", "--role", ""), "--role"),
        (("budgets", "--scope", "acme", "set", "max_tokens_daily=1"), "write options after `set`"),
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_no_file(
    wrong: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ended = ledger(*wrong)
    assert ended.code == 2 and says in " ".join(ended.err.split()), ended.err
    assert list(tmp_path.iterdir()) == []


def test_watch_without_a_terminal_prints_a_line_for_each_change(store: str):
    ended = ledger("watch", "--store", store, "--every", "0.1", "--looks", "3")
    [line] = ended.out.splitlines()
    assert "5 calls  300 + 150 tokens  $0.0031; 1 open (at most" in line
    [shown] = ledger("watch", "--store", store, "--looks", "1", "--json").out.splitlines()
    assert json.loads(shown) == document("usage", "--store", store, "--limit", "10")


def test_ctrl_c_leaves_the_watch_with_zero(store: str):
    code = "from agentflow_serve.commands import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "ledger", "watch", "--store", store, "--every", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "5 calls" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stdout.read(), process.stderr.read()) == (0, "", "")


def test_the_choices_are_those_of_the_ledger():
    assert list(GROUPS) == [by.value for by in GroupBy]
    assert [*STATUSES, "noted"] == [state.value for state in EventState]


def test_money_is_exact_and_a_bar_is_full_only_when_all_is_taken():
    shown = [money(micro) for micro in (0, 1, 1_500_000, 1_234_567_890)]
    assert shown == ["$0.00", "$0.000001", "$1.50", "$1,234.56789"]
    assert [bar(share).count("█") for share in (0, 0.001, 0.5, 0.999, 1)] == [0, 1, 6, 11, 12]
