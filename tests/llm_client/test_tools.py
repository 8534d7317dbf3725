"""A function becomes a tool: what a model sees of it, and what it can do to it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentflow.schemas import compile_schema
from llm_client.errors import CallRefused, ToolArgumentsInvalid, ToolError, ToolFailed
from llm_client.spec import RequestContext
from llm_client.tools import Injected, Tool, tool
from llm_client.tools.strict_json import MAX_ARGUMENTS, MAX_DEPTH
from llm_client.tools.tool import MOST_THREADS
from support.waiting import until


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Address(BaseModel):
    street: str
    number: int = 1


@dataclass
class Item:
    sku: str
    count: int


@tool
async def order(
    items: list[Item],
    to: Address,
    size: Size,
    day: date,
    speed: Literal["slow", "fast"] = "slow",
    note: Annotated[str | None, Field(description="Printed on the parcel.")] = None,
    *,
    price: Decimal = Decimal("9.50"),
    context: RequestContext,
    tenant: Annotated[str, Injected] = "none",
) -> dict[str, Any]:
    """Send a parcel.

    It leaves the same day.

    Args:
        items: What is in it,
            each with its count.
        to (Address): Where it goes.

    Returns:
        Nothing that a model needs to know.
    """
    return {"first": items[0].sku, "to": to.street, "size": size.name, "day": day.isoformat(), "tenant": tenant}


ORDER = {"items": [{"sku": "a", "count": 2}], "to": {"street": "Main"}, "size": "l", "day": "2026-01-02"}


def test_a_model_sees_types_defaults_and_descriptions_but_nothing_injected():
    spec: Any = order.spec()
    assert spec["type"] == "function"
    function = spec["function"]
    assert function["name"] == "order"
    assert function["description"] == "Send a parcel.\n\nIt leaves the same day."
    parameters = function["parameters"]
    properties = parameters["properties"]
    assert list(properties) == ["items", "to", "size", "day", "speed", "note", "price"]
    assert parameters["required"] == ["items", "to", "size", "day"]
    assert parameters["additionalProperties"] is False
    assert properties["items"]["description"] == "What is in it, each with its count."
    assert properties["to"]["description"] == "Where it goes."
    assert properties["note"]["description"] == "Printed on the parcel."
    assert properties["speed"] == {"enum": ["slow", "fast"], "type": "string", "default": "slow"}
    assert json.loads(json.dumps(spec)) == spec


async def test_arguments_arrive_as_the_types_that_the_function_names():
    answer = await order.invoke(json.dumps(ORDER), injected={"tenant": "t1"})
    assert json.loads(answer) == {"first": "a", "to": "Main", "size": "LARGE", "day": "2026-01-02", "tenant": "t1"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"size": "xl"}, "$.size"),
        ({"items": "a"}, "$.items"),
        ({"items": [{"sku": "a", "count": True}]}, "$.items[0].count"),
        ({"day": "tomorrow"}, "$.day"),
        ({"price": "much"}, "$.price"),
        ({"tenant": "t2"}, "tenant"),
        ({"context": {"tenant_id": "t2"}}, "context"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_with_the_place(change: dict[str, Any], problem: str):
    with pytest.raises(ToolArgumentsInvalid) as caught:
        await order.invoke(json.dumps(ORDER | change))
    assert problem in str(caught.value)
    assert caught.value.tool == "order"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '"x"',
        '{"n": NaN}',
        '{"n": 1e999}',
        f'{{"n": {"9" * 5000}}}',
        '{"n": "\\ud800"}',
        '{"n": ' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}",
        "[" * 60_000,
        '{"n": "' + "x" * MAX_ARGUMENTS + '"}',
    ],
    ids=lambda text: text[:16],
)
async def test_text_that_is_no_sound_json_object_is_never_a_call(text: str):
    calls: list[Any] = []
    anything = Tool(calls.append, name="anything", parameters={"type": "object", "additionalProperties": True})
    with pytest.raises(ToolArgumentsInvalid):
        await anything.invoke(text)
    assert calls == []


async def test_no_arguments_may_be_no_text():
    assert await Tool(lambda: "pong", name="ping").invoke("") == "pong"


async def test_an_explicit_schema_is_closed_so_that_hidden_parameters_cannot_be_set():
    def read(path: str, admin: bool = False) -> str:
        return f"{path} {admin}"

    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    reader = Tool(name="read", description="Read a file.", parameters=schema, call=read)
    assert await reader.invoke('{"path": "a"}') == "a False"
    with pytest.raises(ToolArgumentsInvalid):
        await reader.invoke('{"path": "a", "admin": true}')


async def test_injected_values_win_over_the_model_in_a_schema_that_allows_anything():
    def who(context: RequestContext, user: Annotated[str, Injected], **rest: Any) -> str:
        return f"{context.tenant_id} {user} {rest}"

    anyone = Tool(who, parameters={"type": "object", "additionalProperties": True})
    context = RequestContext(tenant_id="mine")
    answer = await anyone.invoke(
        '{"context": {"tenant_id": "other"}, "user": "root"}', context, injected={"user": "me"}
    )
    assert answer == "mine me {}"


async def test_a_value_that_must_be_injected_is_missed_before_the_call():
    def who(user: Annotated[str, Injected]) -> str:
        return user

    with pytest.raises(ToolFailed, match="injected value 'user'"):
        await Tool(who).invoke("{}")


async def test_a_blocking_function_leaves_the_loop_free_and_keeps_the_callers_context_variables():
    entered, release = threading.Event(), threading.Event()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")

    def block() -> str:
        entered.set()
        release.wait(10)
        return variable.get()

    task = asyncio.create_task(Tool(block).invoke(""))
    await until(entered.is_set)
    release.set()
    assert await task == "mine"


async def test_a_function_that_never_returns_cannot_take_more_and_more_threads():
    release, entered = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        entered.release()
        release.wait(10)

    hanging = Tool(hang)
    tasks = [asyncio.create_task(hanging.invoke("")) for _ in range(MOST_THREADS)]
    await until(lambda: entered._value == MOST_THREADS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(ToolFailed, match="still busy"):
        await hanging.invoke("")
    release.set()
    await until(lambda: not any(thread.name == "llm-tool" for thread in threading.enumerate()))
    assert await hanging.invoke("") == "null"


@pytest.mark.parametrize(
    "error", [ValueError("sk-secret"), StopIteration(), SystemExit(3), asyncio.CancelledError(), RecursionError()]
)
@pytest.mark.parametrize("blocking", [True, False])
async def test_whatever_a_function_raises_is_a_failure_that_tells_no_secret(error: BaseException, blocking: bool):
    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    with pytest.raises(ToolFailed) as caught:
        await Tool(fail if blocking else fail_later, name="fail").invoke("")
    assert caught.value.__cause__ is not None
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("error", [ToolFailed("No such city."), CallRefused("Not now.")])
async def test_a_function_may_say_what_the_model_should_read(error: Exception):
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await Tool(fail).invoke("")
    assert caught.value is error


async def test_cancelling_the_caller_cancels_an_async_function():
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(Tool(wait).invoke(""))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ({"a": [1, 2]}, '{"a":[1,2]}'),
        (Address(street="x"), '{"street":"x","number":1}'),
        (Item("a", 1), '{"sku":"a","count":1}'),
        (float("nan"), '"NaN"'),
        ("\ud800", "?"),
    ],
)
async def test_results_become_text(value: Any, text: str):
    assert await Tool(lambda: value, name="give").invoke("") == text


async def test_a_long_result_is_cut_and_says_so():
    answer = await Tool(lambda: "x" * 500, name="give", max_result_chars=100).invoke("")
    assert answer == "x" * 100 + "\n[cut: these are the first 100 of 500 characters]"


async def test_a_result_without_a_json_form_is_a_failure():
    with pytest.raises(ToolFailed, match="no JSON form"):
        await Tool(lambda: object(), name="give").invoke("")


def _untyped(city) -> None: ...  # type: ignore[no-untyped-def]
def _variadic(*cities: str) -> None: ...
def _positional(city: str, /) -> None: ...
def _unknown(city: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _not_json(lock: threading.Lock) -> None: ...
def _fixed_tuple(pair: tuple[int, str]) -> None: ...
def _good(city: str) -> None: ...


@pytest.mark.parametrize("function", [_untyped, _variadic, _positional, _unknown, _not_json, _fixed_tuple])
def test_a_function_that_cannot_be_described_is_refused_when_it_becomes_a_tool(function: Any):
    with pytest.raises(ToolError, match="cannot be a tool"):
        Tool(function)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "rm -rf"},
        {"name": "x" * 65},
        {"parameters": {"type": "array"}},
        {"parameters": {"type": "object", "properties": {"city": {"type": "town"}}}},
        {"parameters": {"type": "object", "allOf": [{}]}},
    ],
)
def test_a_wrong_name_or_schema_is_refused(options: dict[str, Any]):
    with pytest.raises(ToolError):
        Tool(_good, **options)


def test_an_injected_parameter_must_not_be_shown():
    def who(context: RequestContext) -> None: ...

    with pytest.raises(ToolError, match="'context', which is injected"):
        Tool(who, parameters={"type": "object", "properties": {"context": {}}})


def test_a_tool_is_still_its_function():
    @tool(name="plus", side_effect=True, idempotent=True)
    def add(a: int, b: int = 1) -> int:
        return a + b

    assert add(1) == 2
    assert add.name == "plus"
    assert add.repeatable
    assert not Tool(_good, side_effect=True).repeatable


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=5),
    bool: st.booleans(),
    list[int]: st.lists(st.integers(-9, 9), max_size=3),
    dict[str, bool]: st.dictionaries(st.text(max_size=3), st.booleans(), max_size=2),
    Size: st.sampled_from(["s", "l"]),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Address: st.builds(dict, street=st.text(max_size=3)),
    Item: st.builds(dict, sku=st.text(max_size=3), count=st.integers(0, 9)),
    int | None: st.none() | st.integers(0, 9),
}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["city", "model_config", "schema", "copy", "json", "self_", "class_", "name", "arguments"])


@st.composite
def functions(draw: st.DrawFn) -> tuple[Tool, dict[str, Any]]:
    """A function of random parameters that gives back what it got, and arguments that fit it."""
    import inspect

    kinds = draw(st.dictionaries(NAMES, st.sampled_from(list(VALUES)), max_size=4))
    optional = draw(st.sets(st.sampled_from(sorted(kinds)))) if kinds else set()

    async def echo(**got: Any) -> list[str]:
        return sorted(got)

    echo.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=kind,
                default=None if name in optional else inspect.Parameter.empty,
            )
            for name, kind in kinds.items()
        ]
    )
    return Tool(echo), {name: draw(VALUES[kind]) for name, kind in kinds.items() if name not in optional}


@settings(max_examples=30)
@given(functions())
def test_what_fits_the_schema_reaches_the_function_whatever_its_parameters_are_called(
    case: tuple[Tool, dict[str, Any]],
):
    echo, arguments = case
    parameters = echo.parameters["properties"]
    assert json.loads(asyncio.run(echo.invoke(json.dumps(arguments)))) == sorted(parameters)
    assert set(echo.parameters.get("required", [])) == set(arguments)


@settings(max_examples=30)
@given(functions(), st.dictionaries(NAMES, JUNK, max_size=3))
def test_a_call_happens_exactly_when_the_arguments_fit_the_schema(
    case: tuple[Tool, dict[str, Any]], junk: dict[str, Any]
):
    echo, arguments = case
    offered = arguments | junk
    fits = compile_schema(echo.parameters).check(offered) is None
    try:
        asyncio.run(echo.invoke(json.dumps(offered, allow_nan=False)))
    except ToolArgumentsInvalid:
        assert not fits
    else:
        assert fits
