"""The package's errors cross process borders whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from agentflow.failure import Refused
from flow_runtime import errors
from flow_runtime.errors import FlowRuntimeError
from runtime_core.errors import AgentflowError

FACTS = [
    errors.FlowRuntimeError("m"),
    errors.NodeTimeout("m", timeout_s=1.5),
    errors.OutputInvalid("m"),
    errors.ImageInvalid("m", image="${photo}"),
    errors.ModelFailed("m", model="writer"),
    errors.LedgerUnavailable("m"),
    errors.CallNotAllowed("m", kind="policy_denied", refused=Refused("deny"), retry_after=3.0),
    errors.NodeFailure(
        "m", kind="budget_exceeded", attempts=2, retry_after=3.0, refused=Refused("too_large", "l", "w")
    ),
    errors.SubflowFailed("m", kind="timeout", node="ask", retry_after=3.0),
    errors.StateFailed("m", key="chat_1"),
    errors.SessionFailed("m", session_id="s1"),
    errors.OperationFailed("m", op="http.get", status=503),
    errors.OperationTimeout("m", op="http.get", timeout_s=2.0),
    errors.EgressRefused("m", op="http.get", host="internal", port=80),
    errors.RowNotFound("m", op="features.read"),
    errors.FeatureStoreInvalid("m"),
    errors.OperationUnknown("m", op="acme.x"),
    errors.ToolUnknown("m", tool="look"),
    errors.CodeTimeout("m", timeout_s=0.5),
    errors.CodeFailed("m", error="KeyError", line=3),
    errors.CodeRefused("m", mode="off"),
]


def test_every_error_of_the_package_is_tried_here():
    ours = {value for value in vars(errors).values() if isinstance(value, type)} - {AgentflowError}
    assert {type(error) for error in FACTS} == ours


@pytest.mark.parametrize("error", FACTS, ids=lambda error: type(error).__name__)
def test_an_error_and_its_facts_survive_pickle_and_copy(error: FlowRuntimeError):
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_the_kinds_of_failure_that_a_node_asks_for_are_in_the_tree():
    assert issubclass(errors.CodeTimeout, errors.NodeTimeout)
    assert issubclass(errors.OperationTimeout, errors.NodeTimeout)
    assert issubclass(errors.OperationTimeout, errors.OperationFailed)
    assert issubclass(errors.EgressRefused, errors.OperationFailed)
