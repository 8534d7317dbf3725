"""Errors cross processes: their class, message and facts must arrive."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator

import pytest

from runtime_core import errors
from runtime_core.errors import (
    AgentflowError,
    IdentityError,
    StoreError,
    StoreUnavailableError,
    StoreUrlError,
)

FACTS = {
    "what": "scope id",
    "node": "classify",
    "code": "overloaded",
    "retry_after": 1.5,
    "location": "store.db",
    "outcome_unknown": True,
    "limit": 100,
    "size": 101,
    "owner": "node-1",
    "here": "node-2",
    "component": "keyed",
    "found": 2,
    "known": 1,
    "expected": 3,
    "actual": 4,
    "path": "budgets.yaml",
    "problems": ("budgets.yaml:3: it is wrong",),
}


def tree(root: type[AgentflowError]) -> Iterator[type[AgentflowError]]:
    yield root
    for branch in root.__subclasses__():
        if branch.__module__ == errors.__name__:
            yield from tree(branch)


CLASSES = list(tree(AgentflowError))


def full(kind: type[AgentflowError]) -> tuple[AgentflowError, dict[str, object]]:
    """One of its kind with every fact set to something that is not the default."""
    parameters = list(inspect.signature(kind).parameters)
    assert parameters[0] == "message"
    facts = {name: FACTS[name] for name in parameters[1:]}
    return kind("It broke.", **facts), facts


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_every_error_arrives_with_its_message_and_facts(kind: type[AgentflowError], travel: object) -> None:
    error, facts = full(kind)
    assert callable(travel)
    arrived = travel(error)
    assert type(arrived) is kind
    assert str(arrived) == "It broke."
    assert {name: getattr(arrived, name) for name in facts} == facts


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_can_be_made_from_a_message_alone(kind: type[AgentflowError]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("It broke.")))) == "It broke."


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_stands_in_the_drawing_of_the_tree(kind: type[AgentflowError]) -> None:
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


def test_a_caller_can_catch_by_family() -> None:
    assert issubclass(StoreUnavailableError, StoreError)
    assert issubclass(IdentityError, ValueError) and issubclass(StoreUrlError, ValueError)
