"""The table of small flows with every node in a deployment of its own: the same answers as in one process.

A replica costs two seconds of CPU, so this runs the entries that cross between processes in a way of their own;
`AGENTFLOW_TABLE=full` (`make table`) runs all of them, some at a time. tests/table runs them without a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.over_http import http_door, problems_over_http
from support.per_node import deployed
from support.surroundings import surroundings
from support.table import Case, shown, table

pytestmark = pytest.mark.serve

REPLICAS = 24
"""At most this many at a time; each takes some 150 MB."""


def batches() -> Iterator[list[Case]]:
    batch: list[Case] = []
    for case in table():
        if not (case.wire or os.environ.get("AGENTFLOW_TABLE") == "full"):
            continue
        if batch and sum(len(each.flow["nodes"]) for each in [*batch, case]) > REPLICAS:
            yield batch
            batch = []
        batch.append(case)
    yield batch


@pytest.mark.parametrize("batch", [*batches()], ids=lambda batch: f"{batch[0].id} to {batch[-1].id}")
async def test_per_node(batch: list[Case], cluster: int, tmp_path: Path):
    wrong: dict[str, list[str]] = {}
    async with (
        surroundings() as around,
        http_door() as door,
        deployed(batch, around, tmp_path, name=f"table-{batch[0].id}") as runners,
    ):
        for case in batch:
            around.prepare(case)
            wrong[shown(case)] = await problems_over_http(case, runners[case.id], around, door)
    assert {name: lines for name, lines in wrong.items() if lines} == {}
