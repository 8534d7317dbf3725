"""`memory: session` in one process: the run store keeps what was said for the next process."""

from __future__ import annotations

from pathlib import Path

from flow_runtime import LocalFlow, LocalSettings
from runtime_core.clock import SystemClock
from runtime_core.report import RunReport
from runtime_core.sessions.ops import SessionLimits
from runtime_core.sessions.protocol import SessionStore
from runtime_core.stores import open_database
from support.flows import ScriptedModels, small_flow
from support.stored_sessions import prepared_sessions

CHAT = small_flow(
    """
    chat:
      inputs: [{name: x, type: string}]
      outputs: [{name: out, type: string}]
      prompt: {role: chat, template: "{{ x }}", memory: session}
    """,
    ["_input.x -> chat.x", "chat.out -> _output"],
    requires=("x", "session_id"),
)


async def ask(models: ScriptedModels, text: str, store: str, sessions: SessionStore | None = None) -> RunReport:
    settings = LocalSettings(store=store, sessions=sessions)
    async with LocalFlow(CHAT, models=models, settings=settings) as runner:
        return await runner.run({"x": text, "session_id": "s"})


async def test_the_next_process_goes_on_with_the_conversation(tmp_path: Path):
    models = ScriptedModels({"chat": ["Hello Ada", "Ada"]})
    for text in ("I am Ada", "Who am I?"):
        assert (await ask(models, text, f"sqlite:///{tmp_path}/run.db")).error is None
    _, messages, _ = models.calls[-1]
    assert [message["content"] for message in messages] == ["I am Ada", "Hello Ada", "Who am I?"]


async def test_a_session_that_is_full_fails_the_run_and_says_what_to_do():
    async with open_database("memory:") as database:
        small = await prepared_sessions(database, SystemClock(), limits=SessionLimits(max_records=3))
        models = ScriptedModels({"chat": ["yes"]})
        assert (await ask(models, "1", "memory:", small)).error is None
        report = await ask(models, "2", "memory:", small)
    assert report.error is not None
    assert (report.output, report.error.code) == (None, "session_full")
    assert "begin a new session" in report.error.message
