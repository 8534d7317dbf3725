import pickle

import pytest

from agentflow.errors import (
    CastError,
    ExpressionError,
    ExpressionFailed,
    FlowError,
    FlowInvalid,
    LimitExceeded,
    PlaceholderError,
    PlaceholderFailed,
    RequestInvalid,
    SchemaInvalid,
    SchemaMismatch,
    TemplateError,
    TemplateFailed,
)
from agentflow.findings import Finding

ERRORS = [
    FlowError("it is wrong"),
    FlowInvalid("2 findings", findings=(Finding(code="a", message="b"), Finding(code="c", message="d"))),
    RequestInvalid("lacks two fields", missing=("user_id", "query")),
    ExpressionError("unknown name", source="a > 1", column=1),
    ExpressionFailed("no order", source="a > 1", cause="null and a number have no order"),
    TemplateError("a call", line=4),
    TemplateFailed("no value", line=2, cause="'x' has no value"),
    PlaceholderError("unknown", placeholder="${x}", where="key"),
    PlaceholderFailed("missing", placeholder="${x.y}", where="filters.tier"),
    CastError("two rows", source="table", target="object"),
    SchemaInvalid("bad pattern", path="properties.name.pattern"),
    SchemaMismatch("does not fit", problem="$ is a string, not a number"),
    LimitExceeded("too much work"),
]


def _tree(base: type[FlowError]) -> set[type[FlowError]]:
    return {base}.union(*(_tree(child) for child in base.__subclasses__()))


def test_every_error_of_the_package_is_in_the_round_trip() -> None:
    defined = {error for error in _tree(FlowError) if error.__module__ == "agentflow.errors"}
    assert defined == {type(error) for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_a_process_boundary_with_its_facts(error: FlowError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) == error.message
    assert vars(copy) == vars(error)
