"""The scheduler, one promise at a time, and against a naive interpreter on random flows."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from agentflow import from_mapping, plan
from agentflow.failure import Failure
from agentflow.schedule import (
    MAX_DISPATCHES,
    CancelNode,
    DeadlinePassed,
    EndRun,
    NodeFailed,
    NodeLost,
    NodeRefused,
    NodeSucceeded,
    RunStarted,
    StartNode,
    initial,
    step,
)
from support.graphs import graph, play
from support.interpreter import interpret, without_reasons
from support.naive_nodes import Failed
from support.random_flows import flow_files, requests


def started(**fields: Any) -> RunStarted:
    return RunStarted(request=fields, fields={**fields, "trace_id": "t"})


def done(node: str, value: Any = 1) -> NodeSucceeded:
    return NodeSucceeded(node, {"out": value})


def failed(node: str) -> NodeFailed:
    return NodeFailed(node, Failure("broke", attempts=2))


def starts(commands: list[Any]) -> list[str]:
    return [command.node for command in commands if isinstance(command, StartNode)]


def the_end(commands: list[Any]) -> Any:
    [end] = [command.end for command in commands if isinstance(command, EndRun)]
    return end


def test_a_node_starts_when_its_own_inputs_are_settled_and_waits_for_no_level():
    comb = graph(
        "_input.x -> a",
        "a -> slow",
        "a -> quick",
        "quick -> after",
        "slow -> end.s",
        "after -> end.a",
        "end -> _output",
    )
    _, commands = play(comb, started(x=1), done("a"), done("quick"))
    assert starts(commands) == ["after"]


def test_independent_nodes_start_at_once():
    _, commands = play(graph("_input.x -> a", "_input.x -> b", "a -> _output", "b -> _output"), started(x=1))
    assert starts(commands) == ["a", "b"]


def test_an_edge_whose_condition_is_false_carries_nothing_and_skips_the_branch_behind_it():
    branch = graph(
        "_input.x -> a",
        "a -> hot.in if out > 5",
        "hot -> hotter",
        "hotter -> _output",
        "a -> cold if out <= 5",
        "cold -> _output",
    )
    state, commands = play(branch, started(x=1), done("a", 3))
    assert starts(commands) == ["cold"]
    state, commands = step(state, done("cold", "fine"))
    assert the_end(commands).output == "fine"
    assert state.settled == {"a": "succeeded", "hot": "skipped", "hotter": "skipped", "cold": "succeeded"}


def test_a_condition_sees_the_source_port_value_and_the_context():
    check = graph("_input.x -> a", "a -> b if out == value and context.user == 'u1'", "b -> _output")
    _, commands = play(check, started(x=1, user="u1"), done("a", 7))
    assert starts(commands) == ["b"]


def test_a_condition_that_raises_fails_the_run_and_names_the_edge():
    _, commands = play(graph("_input.x -> a", "a -> b if out['k'] > 1", "b -> _output"), started(x=1), done("a", {}))
    end = the_end(commands)
    assert end.code == "condition_failed"
    assert "edges[1] from 'a' to 'b'" in end.message


def test_optional_inputs_without_a_live_edge_are_none():
    optional = graph("_input.x -> a", "_input.y -> a.extra", "a -> _output", optional=["a.extra"])
    _, [command] = play(optional, started(x=1))
    assert command.inputs == {"in": 1, "extra": None}


def test_an_absent_request_field_makes_its_edges_dead():
    _, commands = play(graph("_input.y -> a", "a -> _output"), started(x=1))
    assert the_end(commands).code == "no_output"


def test_two_live_edges_into_one_input_fail_the_target_node():
    merge = graph("_input.x -> a", "_input.x -> b", "a -> c", "b -> c", "c.err -> d", "c -> _output", "d -> _output")
    state, commands = play(merge, started(x=1), done("a"), done("b"))
    assert starts(commands) == ["d"]
    assert state.settled["c"] == "failed"
    assert "c.in" in state.failures["c"].reason


def test_a_caught_failure_is_a_value_and_kills_the_normal_outputs():
    caught = graph("_input.x -> a", "a -> b", "b -> _output", "a.err -> sorry", "sorry -> _output")
    state, [command] = play(caught, started(x=1), failed("a"))
    assert command == StartNode("sorry", {"in": {"reason": "broke", "node": "a", "type": "error", "attempts": 2}}, 1)
    assert state.settled["b"] == "skipped"


def test_an_uncaught_failure_ends_the_run_and_cancels_what_is_running():
    plain = graph("_input.x -> a", "_input.x -> b", "a -> _output", "b -> _output")
    _, commands = play(plain, started(x=1), failed("a"))
    assert CancelNode("b") in commands
    end = the_end(commands)
    assert (end.code, end.node) == ("node_failed", "a")
    assert "'a'" in end.message


def test_the_first_live_edge_in_the_order_of_the_list_makes_the_answer():
    first = graph("_input.x -> a", "_input.x -> b", "b -> _output", "a -> _output")
    _, commands = play(first, started(x=1), done("a", "a"), done("b", "b"))
    assert the_end(commands).output == "b"


def test_named_answers_build_an_object_of_the_live_ones():
    named = graph("_input.x -> a", "a -> _output.yes if out", "a -> _output.no if not out", "a -> _output.raw")
    _, commands = play(named, started(x=1), done("a", 0))
    assert the_end(commands).output == {"no": 0, "raw": 0}


def test_the_answer_waits_for_every_needed_node():
    tail = graph("_input.x -> a", "a -> _output", "a -> writes")
    state, commands = play(tail, started(x=1), done("a"))
    assert starts(commands) == ["writes"]
    _, commands = step(state, done("writes"))
    assert the_end(commands).output == 1


def test_a_lost_node_is_dispatched_at_most_twice_again():
    lonely = graph("_input.x -> a", "a -> _output")
    events: list[Any] = [started(x=1)]
    for dispatch in range(2, MAX_DISPATCHES + 1):
        events.append(NodeLost("a", "died"))
        _, [command] = play(lonely, *events)
        assert command == StartNode("a", {"in": 1}, dispatch)
    _, commands = play(lonely, *events, NodeLost("a", "died"))
    assert the_end(commands).code == "node_lost"


def test_a_lost_node_with_side_effects_is_not_dispatched_again():
    writer = graph("_input.x -> a", "a -> _output", unrepeatable=["a"])
    _, commands = play(writer, started(x=1), NodeLost("a", "died"))
    assert starts(commands) == []
    assert the_end(commands).code == "node_lost"


def test_a_refused_node_ends_the_run_with_the_reason_and_when_to_try_again():
    refused = NodeRefused("a", "overloaded", "its queue is full", 2.5)
    end = the_end(play(graph("_input.x -> a", "a -> _output"), started(x=1), refused)[1])
    assert (end.code, end.retry_after, end.node) == ("overloaded", 2.5, "a")


def test_the_deadline_ends_the_run_and_names_the_nodes_that_were_running():
    _, commands = play(graph("_input.x -> slow", "slow -> _output"), started(x=1), DeadlinePassed())
    assert commands[0] == CancelNode("slow")
    end = the_end(commands)
    assert end.code == "deadline_exceeded"
    assert "'slow'" in end.message


def test_events_after_the_end_and_doubled_reports_change_nothing():
    chain = graph("_input.x -> a", "a -> b", "b -> _output")
    once, _ = play(chain, started(x=1), done("a"))
    twice, commands = step(once, done("a", "other"))
    assert (twice, commands) == (once, [])
    over, _ = step(once, done("b"))
    assert step(over, done("b", 2)) == (over, [])


def test_a_flow_without_nodes_answers_from_the_request():
    assert the_end(play(graph("_input.x -> _output"), started(x=5))[1]).output == 5
    assert the_end(play(graph("_input -> _output"), started(x=5))[1]).output == {"x": 5}


def test_a_chain_of_ten_thousand_skipped_nodes_settles_in_one_step():
    edges = [
        "_input.x -> n0",
        *(f"n{i} -> n{i + 1}" for i in range(10_000)),
        "n10000 -> _output",
        "_input.y -> _output",
    ]
    _, commands = play(graph(*edges), started(y="short cut"))
    assert the_end(commands).output == "short cut"


# -- against a naive interpreter ---------------------------------------------------------------------------------------


@given(flow_files(), requests(), st.integers())
def test_any_order_of_completion_gives_what_a_naive_interpreter_gives(
    document: dict[str, Any], request: dict[str, Any], seed: int
):
    expected = interpret(document, request)
    assume(expected.code != "bad_input")
    target = plan(from_mapping(document).flow).graph
    rng = random.Random(seed)
    defaults = {"extra": document["inputs"]["extra"]["default"]}
    state, commands = step(initial(target), RunStarted(request={**defaults, **request}, fields={**defaults, **request}))
    running: list[str] = []
    while state.end is None:
        for command in commands:
            if isinstance(command, StartNode):
                running.append(command.node)
                assert without_reasons(dict(command.inputs)) == expected.given[command.node]
        node = running.pop(rng.randrange(len(running)))
        made = expected.made[node]
        if isinstance(made, Failed):
            event: Any = NodeFailed(node, Failure("", kind=made.kind, attempts=made.attempts))
        else:
            event = NodeSucceeded(node, made)
        state, commands = step(state, event)
    if expected.aborts:
        named = state.end.node if state.end.code == "node_failed" else None
        assert (state.end.code, named) in expected.aborts
        return
    assert dict(state.settled) == expected.statuses
    if expected.code != "bad_output":
        assert (state.end.code, without_reasons(state.end.output)) == (expected.code, expected.output)


@given(flow_files(), requests())
def test_a_step_leaves_the_state_before_it_untouched(document: dict[str, Any], request: dict[str, Any]):
    state = initial(plan(from_mapping(document).flow).graph)
    snapshot = copy.deepcopy((state.unsettled, state.carried, state.running, state.settled))
    after, commands = step(state, started(**request))
    assert (state.unsettled, state.carried, state.running, state.settled) == snapshot
    for node in starts(commands):
        snapshot = copy.deepcopy((after.unsettled, after.carried, after.running, after.settled))
        step(after, failed(node))
        assert (after.unsettled, after.carried, after.running, after.settled) == snapshot


def test_an_answer_without_any_live_edge_names_the_failure_that_was_swallowed():
    swallowed = graph(
        "_input.x -> a", "a -> b", "b -> _output", "a.err -> c if value['type'] == 'timeout'", "c -> _output"
    )
    end = the_end(play(swallowed, started(x=1), failed("a"))[1])
    assert (end.code, end.node) == ("no_output", "a")
    assert "broke" in end.message


def test_a_rate_limit_ends_the_run_with_its_own_code_and_when_to_try_again():
    event = NodeFailed("a", Failure("slow down", attempts=1, retry_after=7.0))
    end = the_end(play(graph("_input.x -> a", "a -> _output"), started(x=1), event)[1])
    assert (end.code, end.retry_after) == ("rate_limited", 7.0)


def test_a_node_that_needs_any_input_runs_on_one_and_is_skipped_without_any():
    made = graph(
        "a -> c.x", "b -> c.y", "a.err -> _output", "b.err -> _output", "c -> _output", optional=["c.x", "c.y"]
    )
    nodes = {**made.nodes, "c": replace(made.nodes["c"], any_input=True)}
    either = replace(made, nodes=nodes)
    failed = [NodeFailed(node, Failure("no")) for node in ("a", "b")]
    _, commands = play(either, started(), failed[0], done("b"))
    assert [command for command in commands if isinstance(command, StartNode)] == [
        StartNode("c", {"x": None, "y": 1}, 1)
    ]
    state, _ = play(either, started(), *failed)
    assert state.settled["c"] == "skipped"
