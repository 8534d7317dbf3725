"""Makes the parquet files of the sample groups from sample_data.yaml: python configs/features/make_sample_data.py

The vectors of the handbook are those of the simulated model, so that it can be searched without a key or a network.
Another folder can be named: its group.yaml files must be there.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flow_runtime.feature_store.names import named
from flow_runtime.feature_store.url import check_feature_store, open_feature_store
from llmhub_runtime.sim.embeddings import embed
from runtime_core.clock import ManualClock
from runtime_core.ids import SequentialIds

HERE = Path(__file__).parent
MADE_AT = datetime(2025, 11, 1, tzinfo=UTC)
"""Part of the files' names: what a flow writes later counts more."""


def sample_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows by group, with their vectors."""
    groups = yaml.safe_load((HERE / "sample_data.yaml").read_text())
    for rule in groups["returns_handbook_v1"]:
        rule["vector"] = list(embed(f"{rule['title']} {rule['content']}"))
    return groups


async def make(folder: Path) -> None:
    """Put the sample rows in place of every row that the groups have."""
    store = open_feature_store(check_feature_store(f"local:{folder}"), clock=ManualClock(MADE_AT), ids=SequentialIds())
    try:
        for group, rows in sample_rows().items():
            for part in (folder / group).glob("*.parquet"):
                part.unlink()
            await store.write(named(group, what="the group"), rows, None)
    finally:
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE))
