"""Failpoints: silent unless armed, and never armed by a mistyped name."""

from __future__ import annotations

import pytest

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores import failpoints
from runtime_core.stores.failpoints import arm_from_environment, armed, failpoint


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", {})


def test_a_failpoint_acts_only_while_it_is_armed() -> None:
    hits: list[str] = []
    failpoint("store.before_commit")
    with armed("store.before_commit", lambda: hits.append("hit")):
        failpoint("store.before_commit")
        failpoint("store.after_commit")
    failpoint("store.before_commit")
    assert hits == ["hit"]


def test_the_environment_arms_a_failpoint_for_one_hit() -> None:
    arm_from_environment({"AGENTFLOW_FAILPOINTS": "store.before_commit:raise@3"})
    for _ in range(2):
        failpoint("store.before_commit")
    with pytest.raises(StoreUnavailableError):
        failpoint("store.before_commit")
    failpoint("store.before_commit")


def test_an_empty_environment_arms_nothing() -> None:
    arm_from_environment({})
    failpoint("store.before_commit")


@pytest.mark.parametrize(
    "setting", ["store.nowhere:kill", "store.before_commit:explode", "store.before_commit:raise@x"]
)
def test_a_setting_that_means_nothing_is_an_error(setting: str) -> None:
    with pytest.raises(ValueError):
        arm_from_environment({"AGENTFLOW_FAILPOINTS": setting})
