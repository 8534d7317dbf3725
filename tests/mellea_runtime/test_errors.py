"""Errors cross processes with their facts."""

from __future__ import annotations

import pickle

import pytest

from mellea_runtime import errors
from runtime_core.errors import AgentflowError

EXAMPLES = [
    errors.MelleaRuntimeError("m"),
    errors.MelleaIncompatible("m", installed="0.9"),
    errors.RuntimeSettingsInvalid("m", setting="backend"),
    errors.WouldBlockLoop("m"),
    errors.SlotRefused("m", slot="a:b"),
    errors.SlotNotFound("m", slot="a:b"),
    errors.SlotFailed("m", slot="a:b", attempts=2, invalid=True),
    errors.AnswerInvalid("m", answer="x"),
    errors.RequirementsUnmet("m", failed=("a",), answer="x", attempts=3),
    errors.ContextNotPortable("m"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: errors.MelleaRuntimeError):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert isinstance(again, AgentflowError)


def test_every_error_has_an_example_and_stands_in_the_tree():
    classes = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.MelleaRuntimeError) and not each.__name__.startswith("_")
    }
    assert classes == {type(error) for error in EXAMPLES}
    assert all(each.__name__ in (errors.__doc__ or "") for each in classes)
