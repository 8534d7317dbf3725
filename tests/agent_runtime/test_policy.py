"""Policy: which rule counts, who is asked, and what happens at the doors of layer 0."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent_runtime import (
    ActionFilter,
    ActionManager,
    ActionRecord,
    ActionStatus,
    ConstraintPolicy,
    DataAccessPolicy,
    Effect,
    ExecutionContext,
    GuardChain,
    InMemoryActionStore,
    InMemoryEventBus,
    InMemoryJobStore,
    JobManager,
    ModelPolicy,
    PolicyDenied,
    PolicyDocument,
    PolicyEngine,
    PolicyGuard,
    PolicyMiddleware,
    PolicyResult,
    RedactionPolicy,
    RuntimeEvent,
    ToolPolicy,
)
from flow_runtime.call import NodeCall
from flow_runtime.tool_policy import AdmitByPolicy, ToolRequest
from llm_client import Admission, Agent, RequestSpec, tool
from llm_client.errors import CallRefused
from llm_client.guard import Lease
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending
from runtime_core.clock import ManualClock
from support.engine import rig
from support.waiting import until

ME = ExecutionContext(scope_id="internal", principal_id="ada", run_id="run-1")
OTHER = ExecutionContext(scope_id="tenant-1", principal_id="eve", run_id="run-2")


@pytest.fixture
async def actions() -> AsyncIterator[ActionManager]:
    async with InMemoryActionStore() as store:
        yield ActionManager(store, poll_s=0.02)


async def the_open_one(actions: ActionManager) -> ActionRecord:
    async with asyncio.timeout(10):
        while not (found := await actions.list(ActionFilter(status=ActionStatus.PENDING))):
            await asyncio.sleep(0.001)
    return found[0]


# -- which rule counts -------------------------------------------------------------------------------------------------

RULES = {
    Effect.ALLOW: ToolPolicy(tool_patterns=("file_*",)),
    Effect.WARN: ToolPolicy(tool_patterns=("file_*",), warn="careful"),
    Effect.REQUIRE_APPROVAL: ToolPolicy(tool_patterns=("file_*",), require_approval=True),
    Effect.DENY: ToolPolicy(tool_patterns=("file_*",), deny=True),
}


@pytest.mark.parametrize("effects", [each for n in range(1, 5) for each in permutations(RULES, n)])
async def test_the_strictest_rule_counts_in_whatever_order(effects: tuple[Effect, ...]) -> None:
    engine = PolicyEngine([RULES[effect] for effect in effects])
    result = await engine.check_tool("file_read", ME)
    assert result.effect is max(effects)
    assert result.allowed == (max(effects) <= Effect.WARN)
    assert (await engine.check_tool("shell", ME)).effect is Effect.ALLOW


@given(st.lists(st.sampled_from(list(RULES)), max_size=6), st.booleans())
def test_a_further_rule_never_allows_more(effects: list[Effect], denies_by_default: bool) -> None:
    async def check() -> None:
        engine = PolicyEngine([RULES[Effect.ALLOW]], default="deny" if denies_by_default else "allow")
        before = await engine.check_tool("file_read", ME)
        for effect in effects:
            engine.add_rule(RULES[effect])
            after = await engine.check_tool("file_read", ME)
            assert after.effect >= before.effect
            before = after

    asyncio.run(check())


async def test_with_deny_as_the_default_only_what_a_rule_concerns_may_pass() -> None:
    engine = PolicyEngine([RULES[Effect.ALLOW]], default="deny")
    assert (await engine.check_tool("file_read", ME)).allowed
    result = await engine.check_tool("shell", ME)
    assert (result.allowed, result.reason) == (False, "no rule allows it")
    assert not (await engine.check_model("gpt-4", ME)).allowed


@pytest.mark.parametrize(
    ("rule", "mine", "theirs"),
    [
        (ToolPolicy(tool_patterns=("*",), allowed_scopes=("internal",)), True, False),
        (ToolPolicy(tool_patterns=("*",), allowed_scopes=("int*", "tenant-?")), True, True),
        (ToolPolicy(tool_patterns=("*",), denied_scopes=("tenant-*",)), True, False),
        (ToolPolicy(tool_patterns=("*",), allowed_principals=("eve",)), False, True),
        (ToolPolicy(tool_patterns=("*",), denied_principals=("ADA",)), True, True),
        (ToolPolicy(tool_patterns=("*",), allowed_scopes=()), False, False),
        (ToolPolicy(tool_patterns=("other",), deny=True), True, True),
    ],
)
async def test_a_rule_says_who_may(rule: ToolPolicy, mine: bool, theirs: bool) -> None:
    engine = PolicyEngine([rule])
    assert (await engine.check_tool("file_read", ME)).allowed is mine
    assert (await engine.check_tool("file_read", OTHER)).allowed is theirs


async def test_models_are_known_by_their_name_and_with_their_provider() -> None:
    engine = PolicyEngine([ModelPolicy(model_patterns=("openai/gpt-4*", "claude-*"), deny=True)])
    for name, provider, allowed in (
        ("gpt-4-0125", "openai", False),
        ("gpt-4-0125", "azure", True),
        ("gpt-4-0125", None, True),
        ("claude-x", "anthropic", False),
        ("Claude-x", "anthropic", True),
    ):
        assert (await engine.check_model(name, ME, provider=provider)).allowed is allowed, (name, provider)


async def test_data_is_a_resource_and_what_is_done_with_it() -> None:
    engine = PolicyEngine(
        [DataAccessPolicy(resource_patterns=("customers.*",), operations=("write", "del*"), deny=True, reason="GDPR")]
    )
    assert (await engine.check_data("customers.email", "read", ME)).allowed
    assert (await engine.check_data("orders", "write", ME)).allowed
    for operation in ("write", "delete"):
        assert (await engine.check_data("customers.email", operation, ME)).reason == "GDPR"


async def test_constraints_bound_what_is_given_and_what_comes_back() -> None:
    engine = PolicyEngine(
        [
            ConstraintPolicy(tool_patterns=("*",), max_argument_bytes=20),
            ConstraintPolicy(model_patterns=("*",), max_input_chars=10, max_output_tokens=500),
            ConstraintPolicy(model_patterns=("gpt-*",), max_output_tokens=100),
        ]
    )
    assert (await engine.check_tool("t", ME, arguments={"a": "short"})).allowed
    assert "20 bytes" in (await engine.check_tool("t", ME, arguments={"a": "x" * 50})).reason
    assert (await engine.check_model("gpt-4", ME, input_chars=10)).max_output_tokens == 100
    assert (await engine.check_model("llama", ME)).max_output_tokens == 500
    assert not (await engine.check_model("llama", ME, input_chars=11)).allowed


def test_redaction_takes_out_values_at_any_depth() -> None:
    engine = PolicyEngine(
        [
            RedactionPolicy(field_patterns=("*password*", "api_key")),
            RedactionPolicy(field_patterns=("e?",), replacement=""),
        ]
    )
    value = {"user": [{"old_password": "x", "name": "Ada", "em": [1]}], "api_key": {"deep": "y"}, "n": 1}
    assert engine.redact(value) == {
        "user": [{"old_password": "[redacted]", "name": "Ada", "em": ""}],
        "api_key": "[redacted]",
        "n": 1,
    }
    assert value["api_key"] == {"deep": "y"}, "a copy"
    assert PolicyEngine().redact(value) is value


def test_a_policy_is_a_file() -> None:
    document = PolicyDocument.model_validate(
        {
            "name": "production",
            "default": "deny",
            "rules": [
                {"kind": "tool", "tool_patterns": ["file_*"], "allowed_scopes": ["internal"]},
                {"kind": "redaction", "field_patterns": ["*key*"]},
            ],
        }
    )
    assert PolicyEngine.of(document).rules == document.rules
    assert TypeAdapter(PolicyDocument).validate_json(document.model_dump_json()) == document
    for broken in ({"kind": "tool"}, {"kind": "tool", "tool_patterns": []}, {"kind": "tool", "tool_patern": ["*"]}):
        with pytest.raises(ValidationError):
            PolicyDocument.model_validate({"rules": [broken]})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|a)*b", "*a" * 60 + "b", "[a-z]*[!b]" * 20])
async def test_no_pattern_takes_long(pattern: str) -> None:
    engine = PolicyEngine([ToolPolicy(tool_patterns=(pattern,), deny=True)])
    began = time.process_time()
    await engine.check_tool("a" * 256, ME)
    assert time.process_time() - began < 0.05


async def test_names_from_models_do_not_pile_up() -> None:
    engine = PolicyEngine([RULES[Effect.DENY]])
    for number in range(3000):
        assert not (await engine.check_tool(f"file_{number}", ME)).allowed
    assert len(engine._concerned) <= 1024


# -- approvals ---------------------------------------------------------------------------------------------------------

ASK = ModelPolicy(name="big models", model_patterns=("gpt-4*",), require_approval=True)


@pytest.mark.parametrize(
    ("resolution", "allowed"),
    [
        ({"approved": True}, True),
        ({"confirmed": True}, True),
        ({"approved": False}, False),
        ({"approved": "yes"}, False),
    ],
)
async def test_an_approval_continues_when_it_is_granted(
    actions: ActionManager, resolution: dict[str, Any], allowed: bool
) -> None:
    engine = PolicyEngine([ASK], actions=actions)
    checking = asyncio.create_task(engine.check_model("gpt-4", OTHER))
    desk = actions.for_scope("tenant-1")
    action = await the_open_one(desk)
    assert (action.type, action.payload["name"], action.payload["principal_id"]) == ("approve", "gpt-4", "eve")
    await desk.resolve(action_id=action.action_id, resolution=resolution)
    result = await checking
    assert (result.allowed, result.effect, result.action_id) == (allowed, Effect.REQUIRE_APPROVAL, action.action_id)


async def test_a_run_asks_once_for_each_thing(actions: ActionManager) -> None:
    engine = PolicyEngine([ASK], actions=actions)
    checking = [asyncio.create_task(engine.check_model("gpt-4", OTHER)) for _ in range(10)]
    desk = actions.for_scope("tenant-1")
    await desk.resolve(action_id=(await the_open_one(desk)).action_id, resolution={"approved": True})
    assert all(result.allowed for result in await asyncio.gather(*checking))
    assert (await engine.check_model("gpt-4", OTHER)).allowed
    assert len(await desk.list()) == 1
    again = asyncio.create_task(engine.check_model("gpt-4", OTHER.model_copy(update={"run_id": "run-3"})))
    await desk.resolve(action_id=(await the_open_one(desk)).action_id, resolution={})
    assert not (await again).allowed


async def test_leave_to_read_data_is_no_leave_to_delete_it(actions: ActionManager) -> None:
    rule = DataAccessPolicy(resource_patterns=("patients",), operations=("*",), require_approval=True)
    engine = PolicyEngine([rule], actions=actions)
    desk = actions.for_scope("tenant-1")
    for operation, granted in (("read", True), ("delete", False)):
        checking = asyncio.create_task(engine.check_data("patients", operation, OTHER))
        action = await the_open_one(desk)
        assert (action.payload["name"], action.payload["operation"]) == ("patients", operation)
        await desk.resolve(action_id=action.action_id, resolution={"approved": granted})
        assert (await checking).allowed is granted
    assert (await engine.check_data("patients", "read", OTHER)).allowed


async def test_an_answer_counts_in_every_process_of_the_run() -> None:
    async with InMemoryActionStore() as store:
        desks = [ActionManager(store, poll_s=0.02) for _ in range(3)]
        engines = [PolicyEngine([ASK], actions=desk) for desk in desks]
        checking = [asyncio.create_task(engine.check_model("gpt-4", OTHER)) for engine in engines[:2]]
        desk = desks[0].for_scope("tenant-1")
        await desk.resolve(action_id=(await the_open_one(desk)).action_id, resolution={"approved": True})
        assert all(result.allowed for result in await asyncio.gather(*checking))
        assert (await engines[2].check_model("gpt-4", OTHER)).allowed, "a process that asks later is not told to wait"
        assert len(await desk.list()) == 1


class Asking:
    """Processes that want the same leave for one run: the first one asks, the others join."""

    def __init__(self, store: InMemoryActionStore, count: int) -> None:
        self.desks = [ActionManager(store, poll_s=0.02) for _ in range(count)]
        self.desk = self.desks[0].for_scope("tenant-1")
        self.checking: list[asyncio.Task[PolicyResult]] = []

    async def begin(self) -> ActionRecord:
        for desk in self.desks:
            checking = PolicyEngine([ASK], actions=desk).check_model("gpt-4", OTHER)
            self.checking.append(asyncio.create_task(checking))
            await the_open_one(self.desk)
        await until(lambda: all(desk.waiting for desk in self.desks))
        return await the_open_one(self.desk)

    async def leave(self, number: int) -> None:
        self.checking[number].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.checking[number]


async def test_a_question_that_its_process_withdraws_is_asked_again_by_another() -> None:
    async with InMemoryActionStore() as store:
        asking = Asking(store, 2)
        first = await asking.begin()
        await asking.leave(0)
        while (second := await the_open_one(asking.desk)).action_id == first.action_id:
            await asyncio.sleep(0.001)
        await asking.desk.resolve(action_id=second.action_id, resolution={"approved": True})
        assert (await asking.checking[1]).allowed
        assert not any(desk.waiting for desk in asking.desks)


async def test_a_process_that_leaves_does_not_withdraw_the_question_of_another() -> None:
    async with InMemoryActionStore() as store:
        asking = Asking(store, 2)
        action = await asking.begin()
        await asking.leave(1)
        await asking.desk.resolve(action_id=action.action_id, resolution={"approved": True})
        assert (await asking.checking[0]).allowed
        assert len(await asking.desk.list()) == 1


async def test_a_question_that_somebody_withdraws_is_refused_and_not_asked_again() -> None:
    async with InMemoryActionStore() as store:
        asking = Asking(store, 2)
        await asking.desk.cancel((await asking.begin()).action_id)
        results = await asyncio.gather(*asking.checking)
        assert [(result.allowed, "it was not granted" in result.reason) for result in results] == [(False, True)] * 2
        assert len(await asking.desk.list()) == 1


@pytest.mark.parametrize("died", [False, True], ids=["waited in vain", "died waiting"])
async def test_a_later_run_of_a_job_asks_again_what_nobody_answered_and_the_same_run_does_not(died: bool) -> None:
    first, second = (OTHER.model_copy(update={"job_id": "job-1", "run_id": run_id}) for run_id in ("run-1", "run-2"))
    clock = ManualClock()
    async with InMemoryActionStore() as store, InMemoryActionStore() as left_behind:
        actions = ActionManager(store, clock=clock, poll_s=0.02)
        refused = asyncio.create_task(PolicyEngine([ASK], actions=actions).check_model("gpt-4", first))
        question = await the_open_one(actions.for_scope("tenant-1"))
        await left_behind.create(question, token_hash="lost")
        clock.advance(301)
        assert not (await refused).allowed
        later = ActionManager(left_behind if died else store, clock=clock, poll_s=0.02)
        desk, engine = later.for_scope("tenant-1"), PolicyEngine([ASK], actions=later)
        again = asyncio.create_task(engine.check_model("gpt-4", second))
        while (asked := await the_open_one(desk)).action_id == question.action_id:
            await asyncio.sleep(0.001)
        await desk.resolve(action_id=asked.action_id, resolution={"approved": True})
        assert (await again).allowed
        assert (await PolicyEngine([ASK], actions=later).check_model("gpt-4", second)).allowed
        assert not (await PolicyEngine([ASK], actions=later).check_model("gpt-4", first)).allowed
        assert len(await desk.list()) == 2


async def test_nobody_answering_is_a_no(actions: ActionManager) -> None:
    engine = PolicyEngine([ASK], actions=actions, approval_timeout_s=0.02)
    result = await engine.check_model("gpt-4", ME)
    assert not result.allowed and "nobody answered in time" in result.reason
    alone = await PolicyEngine([ASK]).check_model("gpt-4", ME)
    assert not alone.allowed and "nobody can be asked" in alone.reason


async def test_a_job_that_is_over_asks_nobody() -> None:
    async with InMemoryActionStore() as store, InMemoryJobStore() as job_store:
        actions = ActionManager(store, job_manager=JobManager(job_store))
        engine = PolicyEngine([ASK], actions=actions)
        result = await engine.check_model("gpt-4", ME.model_copy(update={"job_id": "job-over"}))
        assert not result.allowed and "nobody could be asked" in result.reason


async def test_who_stops_waiting_withdraws_the_question(actions: ActionManager) -> None:
    engine = PolicyEngine([ASK], actions=actions)
    checking = asyncio.create_task(engine.check_model("gpt-4", ME))
    desk = actions.for_scope("internal")
    action = await the_open_one(desk)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert (await desk.get(action.action_id)).status is ActionStatus.CANCELLED


async def test_what_was_not_simply_allowed_is_an_event() -> None:
    bus = InMemoryEventBus()
    events: list[RuntimeEvent] = []
    await bus.subscribe(events.append, scope_id="internal")
    engine = PolicyEngine(
        [RULES[Effect.WARN], ToolPolicy(name="no shell", tool_patterns=("shell",), deny=True)], event_bus=bus
    )
    for name in ("file_read", "shell", "harmless"):
        await engine.check_tool(name, ME)
    await bus.flush()
    assert [(event.type.value, event.data["name"], event.data["reason"]) for event in events] == [
        ("policy.warned", "file_read", "careful"),
        ("policy.denied", "shell", "the rule 'no shell' denies it"),
    ]


async def test_a_flow_asks_the_policy_before_every_tool() -> None:
    engine = PolicyEngine([ToolPolicy(tool_patterns=("delete_*",), allowed_scopes=("internal",))])
    policy = AdmitByPolicy(engine)
    for context, allowed in ((ME, True), (OTHER, False)):
        request = ToolRequest("node", "delete_file", None, {"name": "x"}, NodeCall(context, {}))
        if allowed:
            await policy.admit(request)
        else:
            with pytest.raises(PolicyDenied) as denied:
                await policy.admit(request)
            assert denied.value.scope_id == "tenant-1"


# -- the doors of layer 0 ----------------------------------------------------------------------------------------------


class Recording:
    """A guard that remembers, and refuses if it is told to."""

    def __init__(self, admission: Admission | None = None, *, refuses: bool = False) -> None:
        self.admission = admission or Admission()
        self.refuses = refuses
        self.endings: list[Ending] = []

    async def begin(self, attempt: Attempt, request: object) -> Lease:
        if self.refuses:
            raise CallRefused("Not today.")
        return self

    async def end(self, ending: Ending) -> None:
        self.endings.append(ending)


async def test_a_model_that_is_not_allowed_is_not_asked() -> None:
    engine = PolicyEngine([ModelPolicy(name="no m", model_patterns=("sim/m",), deny=True)])
    async with rig(guard=GuardChain(Recording(), PolicyGuard(engine))) as it:
        with pytest.raises(PolicyDenied) as denied:
            await it.engine.complete(RequestSpec.of("Hello!", role="chat"))
        assert (denied.value.rule, denied.value.reason) == ("the rule 'no m'", "deny")
        assert (await it.engine.complete(RequestSpec.of("Hello!", role="other"))).content
        assert [entry.model for entry in it.sent()] == ["o"]


async def test_a_constraint_bounds_the_answer_of_a_model() -> None:
    engine = PolicyEngine([ConstraintPolicy(model_patterns=("*",), max_output_tokens=3)])
    async with rig(guard=PolicyGuard(engine)) as it:
        it.reply(answer="one two three four five six seven eight nine ten")
        await it.engine.complete(RequestSpec.of("Count.", role="chat"))
        assert (await it.row()).attempt.max_output_tokens == 3


async def test_guards_in_a_chain_all_count_and_all_end() -> None:
    first, second = Recording(Admission(max_tokens=9)), Recording(Admission(max_tokens=4, role="other"))
    async with rig(guard=GuardChain(first, second)) as it:
        await it.engine.complete(RequestSpec.of("Hello!", role="chat"))
        assert [entry.model for entry in it.sent()] == ["o"]
        assert (await it.row()).attempt.max_output_tokens == 4
    assert [len(guard.endings) for guard in (first, second)] == [1, 1]
    async with rig(guard=GuardChain(first, Recording(refuses=True), second)) as it:
        with pytest.raises(CallRefused):
            await it.engine.complete(RequestSpec.of("Hello!", role="chat"))
    assert first.endings[1].status is AttemptStatus.RELEASED
    assert len(second.endings) == 1, "it was never asked"


async def test_why_a_guard_refused_is_raised_even_if_a_guard_before_it_cannot_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Recording):
        async def end(self, ending: Ending) -> None:
            raise OSError("no disk")

    class Cancelled(Recording):
        async def begin(self, attempt: Attempt, request: object) -> Lease:
            raise asyncio.CancelledError

    async with rig(guard=GuardChain(Stuck(), Cancelled())) as it:
        with pytest.raises(asyncio.CancelledError):
            await it.engine.complete(RequestSpec.of("Hello!", role="chat"))
    assert "no disk" in caplog.text


async def test_a_tool_that_is_not_allowed_is_not_called_and_the_model_is_told() -> None:
    called: list[str] = []

    @tool
    def delete_file(name: str) -> str:
        """Delete a file."""
        called.append(name)
        return "gone"

    engine = PolicyEngine([ToolPolicy(tool_patterns=("delete_*",), denied_scopes=("default",))])
    async with rig() as it:
        it.script(
            {"match": {"times": 1}, "reply": {"tool_calls": [{"name": "delete_file", "arguments": {"name": "x"}}]}},
            {"reply": {"answer": "I may not."}},
        )
        agent = Agent(engine=it.engine, role="chat", tools=[delete_file], middleware=[PolicyMiddleware(engine)])
        result = await agent.run("Delete x.")
    assert called == []
    assert [(each.outcome.value, each.error) for each in result.tool_calls] == [("refused", "policy_denied")]
