"""RELIABILITY S4, S3: a flow file cannot cost more than reading it, and checking it runs and opens nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentflow import inspect_flow
from agentflow.findings import MAX_FINDINGS, Finding
from support.cost import assert_cheap
from support.doors import refused_flow
from support.payloads import FILES

HEAD = "version: '1.0'\nmetadata: {name: long}\ncontext: {requires: [q]}\n"
MANY = {
    "unknown keys": HEAD + "".join(f"k{index}: 1\n" for index in range(20_000)),
    "numbers for names": HEAD.replace("[q]", f"[{'1,' * 40_000}]") + "nodes: {}\nedges: []\n",
    "numbers for nodes": HEAD + "edges: []\nnodes:\n" + "".join(f"  k{index}: 1\n" for index in range(20_000)),
    "empty nodes": HEAD + "edges: []\nnodes:\n" + "".join(f"  k{index}: {{}}\n" for index in range(20_000)),
    "edges to nowhere": HEAD + "nodes: {}\nedges:\n" + "- {from: a.b, to: c.d}\n" * 9_000,
    "bad conditions": HEAD + "nodes: {}\nedges:\n" + "- {from: a.b, to: c.d, condition: 'x>'}\n" * 7_000,
    "equal tests": HEAD + "nodes: {}\nedges: []\ntests:\n" + "- {name: a, input: {}}\n" * 9_000,
}
"""Good YAML with a defect in every value."""


@pytest.mark.parametrize("attack", FILES)
def test_a_hostile_file_is_refused_in_no_time(attack: str):
    assert refused_flow(FILES[attack])


@pytest.mark.parametrize("attack", MANY)
def test_a_file_with_a_defect_in_every_value_is_refused_soon_and_with_the_first_of_them(attack: str):
    """Reading that many values takes some 0.1 s; the rest may take as much again, and not ten times that."""
    found: list[Finding] = []
    assert_cheap(lambda: found.extend(inspect_flow(MANY[attack])[1]), ms=700, mib=None)
    assert found[-1].code == "more-findings"
    assert len(found) <= 5 * 2 * (MAX_FINDINGS + 1)


WATCHED_LOADING = """
import sys
from agentflow import inspect_flow
from agentflow.code_transform import FILENAME
from support.broken_flows import BROKEN, GOOD
from support.payloads import ESCAPES
seen = []
texts = [case.text for case in BROKEN if len(case.text) < 20_000]
texts += [GOOD.replace("Answer: {{ question }}", source) for source in ESCAPES]
for text in texts:
    inspect_flow(text + "\\n")
# where a parser reports bad syntax, CPython looks for a file of the name it gave to the source
sys.addaudithook(lambda event, args: seen.append(event) if args[:1] != (FILENAME,) else None)
for text in [GOOD, *texts]:
    inspect_flow(text + "\\n")
assert "compile" in seen, "the hook sees how code transforms are parsed"
bad = [each for each in seen if each in ("exec", "open", "import") or each.startswith(("socket", "subprocess", "os."))]
print(sorted(set(bad)))
"""


def test_loading_runs_imports_and_opens_nothing():
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{WATCHED_LOADING}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
