"""transform.filter, transform.map, transform.reduce and io.format_response."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ExpressionError, PlaceholderError, PlaceholderFailed
from flow_runtime.errors import OperationFailed
from support.operations import bound, run_operation

ROWS = [{"n": 3, "name": "c"}, {"n": 1, "name": "a"}, {"n": 2, "name": "b"}]


def per_item(expression: str, **more: Any) -> dict[str, Any]:
    return {"input": "${rows}", "expression": expression, **more}


async def test_filter_keeps_the_elements_that_hold_in_their_order():
    assert await run_operation("transform.filter", per_item("item['n'] >= 2"), rows=ROWS) == [
        ROWS[0],
        ROWS[2],
    ]


async def test_map_makes_a_new_element_of_each():
    assert await run_operation("transform.map", per_item("item['n'] * 2"), rows=ROWS) == [6, 2, 4]


async def test_reduce_folds_from_the_initial_value_on():
    args = per_item("acc + item['name']", initial="names: ")
    assert await run_operation("transform.reduce", args, rows=ROWS) == "names: cab"
    assert await run_operation("transform.reduce", args, rows=[]) == "names: "


async def test_the_initial_value_and_the_input_may_be_deep_placeholders():
    args = {"input": "${shop.rows}", "expression": "acc + item", "initial": "${context.start}"}
    assert await run_operation("transform.reduce", args, shop={"rows": [1, 2]}, context={"start": 10}) == 13


async def test_an_expression_sees_the_context():
    args = per_item("item['n'] >= context.least")
    assert await run_operation("transform.filter", args, rows=ROWS, context={"least": 3}) == [ROWS[0]]


@given(st.lists(st.integers()))
async def test_the_three_agree_with_python(numbers: list[int]):
    assert await run_operation("transform.map", per_item("item + 1"), rows=numbers) == [n + 1 for n in numbers]
    kept = [n for n in numbers if n % 2 == 0]
    assert await run_operation("transform.filter", per_item("item % 2 == 0"), rows=numbers) == kept
    total = await run_operation("transform.reduce", per_item("acc + item", initial=0), rows=numbers)
    assert total == sum(numbers)


@pytest.mark.parametrize(
    ("op", "expression"),
    [
        ("transform.filter", "acc + item"),
        ("transform.map", "rows[0]"),
        ("transform.map", "item.__class__"),
        ("transform.map", "().__class__"),
        ("transform.filter", "item >"),
        ("transform.filter", "${rows}"),
    ],
)
def test_an_expression_outside_the_language_is_refused_when_it_is_bound(op: str, expression: str):
    with pytest.raises(ExpressionError):
        bound(op, per_item(expression), "rows")


@pytest.mark.parametrize("op", ["transform.filter", "transform.map", "transform.reduce"])
@pytest.mark.parametrize(
    ("rows", "kind"), [(None, "null"), ({"a": 1}, "an object"), ("abc", "a string"), (7, "a number")]
)
async def test_an_input_that_is_no_array_is_a_failure(op: str, rows: Any, kind: str):
    with pytest.raises(OperationFailed, match=f"{op} needs an array.*{kind}") as caught:
        await run_operation(op, per_item("item", initial=0), rows=rows)
    assert caught.value.op == op


async def test_an_element_that_the_expression_cannot_take_is_named():
    with pytest.raises(OperationFailed, match=r"failed at element 1: .*no key 'n'"):
        await run_operation("transform.map", per_item("item['n']"), rows=[{"n": 1}, {"m": 2}])


async def test_an_array_has_a_limit():
    assert len(await run_operation("transform.map", per_item("1"), rows=[0] * 100_000)) == 100_000
    with pytest.raises(OperationFailed, match="at most 100000 elements, but its input has 100001"):
        await run_operation("transform.map", per_item("1"), rows=[0] * 100_001)


@pytest.mark.parametrize("op", ["transform.filter", "transform.map", "transform.reduce"])
async def test_a_long_array_leaves_others_their_turn_and_can_be_cancelled(op: str):
    working = asyncio.create_task(run_operation(op, per_item("len(item) + 1", initial=0), rows=[[0] * 100] * 100_000))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not working.done(), "it did all its work in one turn"
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_format_response_fills_placeholders_at_any_depth():
    template = {
        "message": "Hello ${context.name}",
        "rows": [{"first": "${rows.0.n}", "all": "${rows}"}, "$${plain}"],
        "count": 2,
        "none": None,
    }
    filled = await run_operation("io.format_response", {"template": template}, rows=[{"n": 3}], context={"name": "Ann"})
    assert filled == {
        "message": "Hello Ann",
        "rows": [{"first": 3, "all": [{"n": 3}]}, "${plain}"],
        "count": 2,
        "none": None,
    }


async def test_a_placeholder_without_a_value_is_a_failure_that_names_it():
    with pytest.raises(PlaceholderFailed, match=r"context\.auth"):
        await run_operation("io.format_response", {"template": "${context.auth.token}"}, context={})


def test_a_placeholder_that_can_never_be_filled_is_refused_when_it_is_bound():
    with pytest.raises(PlaceholderError, match="'unknown' is not known"):
        bound("io.format_response", {"template": "${unknown}"})
