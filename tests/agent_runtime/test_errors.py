"""Errors cross processes: their class, message and facts must arrive."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator

import pytest

from agent_runtime import BudgetExceededError, PolicyDenied, errors
from agent_runtime.errors import AgentRuntimeError
from llm_client import CallRefused
from runtime_core.errors import AgentflowError


def tree(root: type[AgentflowError]) -> Iterator[type[AgentflowError]]:
    if root.__module__ == errors.__name__:
        yield root
    for branch in root.__subclasses__():
        yield from tree(branch)


CLASSES = sorted({*tree(AgentRuntimeError), *tree(CallRefused)}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_every_error_arrives_with_its_message_and_facts(
    kind: type[AgentflowError], travel: Callable[[AgentflowError], AgentflowError]
) -> None:
    names = list(inspect.signature(kind).parameters)
    assert names[0] == "message"
    facts = {name: 1.5 if name == "retry_after" else f"the {name}" for name in names[1:]}
    arrived = travel(kind("It broke.", **facts))
    assert (type(arrived), str(arrived)) == (kind, "It broke.")
    assert {name: getattr(arrived, name) for name in facts} == facts


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_a_code_of_its_own_and_stands_in_the_drawing(kind: type[AgentflowError]) -> None:
    assert errors.__doc__ is not None and kind.__name__ in errors.__doc__
    assert "code" in vars(kind)
    assert str(kind("It broke.")) == "It broke."


def test_refusals_are_llm_clients() -> None:
    for refusal in (BudgetExceededError("Daily limit exceeded"), PolicyDenied("no", rule="r")):
        assert isinstance(refusal, CallRefused)
        assert not isinstance(refusal, ValueError)
