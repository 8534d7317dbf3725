"""Every error keeps its message and its facts when it crosses a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from llmhub_runtime import errors
from llmhub_runtime.classify import classify
from llmhub_runtime.errors import LLMHubRuntimeError, ProviderCallError
from llmhub_runtime.models import LLMMode, ResolvedCall
from llmhub_runtime.verdict import BY_ANY_LLM_CLASS
from runtime_core.errors import AgentflowError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LLMHubRuntimeError)]
SAMPLES: dict[str, Any] = {
    "line": 3,
    "status": 429,
    "retry_after": 1.5,
    "problems": ("a", "b"),
    "known": ("a", "b"),
    "names": ("A", "B"),
}


def sample(kind: type[LLMHubRuntimeError]) -> LLMHubRuntimeError:
    signature = inspect.signature(kind.__init__)
    facts = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return kind("what is wrong", **{name: SAMPLES.get(name, f"a {name}") for name in facts})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_and_copying_with_its_facts(kind: type[LLMHubRuntimeError]) -> None:
    error = sample(kind)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == "what is wrong"
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_message_alone_is_enough_to_raise_one(kind: type[LLMHubRuntimeError]) -> None:
    assert isinstance(kind("x"), AgentflowError)


def test_every_class_is_in_the_tree_that_the_module_draws() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in CLASSES if kind.__name__ not in errors.__doc__] == []


def test_every_error_class_of_any_llm_has_a_verdict() -> None:
    """A new one after an update fails here, and is then given its place."""
    from any_llm import exceptions

    theirs = {
        name
        for name, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, exceptions.AnyLLMError)
    }
    bases = {"AnyLLMError", "_FinishReasonError"}
    told_otherwise = {"ProviderError", "UnsupportedProviderError"}
    not_of_model_calls = {"BatchNotCompleteError", "ProviderFileNotFoundError"}
    assert theirs - set(BY_ANY_LLM_CLASS) == bases | told_otherwise | not_of_model_calls
    assert set(BY_ANY_LLM_CLASS) - theirs == set()


def test_an_unpicklable_original_does_not_hinder_ours() -> None:
    call = ResolvedCall(role="r", provider="p", model="m", mode=LLMMode.CHAT)
    original = RuntimeError("boom")
    original.socket = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(ProviderCallError) as caught:
        raise classify(original, call, now=datetime.now(UTC)) from original
    assert caught.value.__cause__ is original
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (twin.role, twin.provider, twin.model) == ("r", "p", "m")
