"""docs/threats.md names the tests that are there, each of them once."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "threats.md"
ROW = re.compile(r"\| .+ \| .+ \| \[(.+)\]\((.+)\) \|")


def test_every_row_leads_to_its_test_and_every_test_has_a_row():
    rows = [ROW.fullmatch(line) for line in PAGE.read_text().splitlines()]
    linked = [(row[1], (PAGE.parent / row[2]).resolve()) for row in rows if row]
    assert all(path.is_file() and path.name == name for name, path in linked)
    tests = {path for path in HERE.glob("test_*.py") if path != Path(__file__)}
    assert sorted(path for _, path in linked) == sorted(tests)
