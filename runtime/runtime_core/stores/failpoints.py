"""Named places where a test makes the process die or fail; off, and then almost free, unless armed.

A process under test is armed through its environment, which its entry point hands to `arm_from_environment`:

    AGENTFLOW_FAILPOINTS=store.before_commit:kill,store.after_commit:raise@3     (@3: at the third hit)
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from runtime_core.errors import StoreUnavailableError

VARIABLE = "AGENTFLOW_FAILPOINTS"

FAILPOINTS = frozenset(
    {
        "store.before_commit",  # the statements of a group have run, nothing is durable
        "store.after_commit",  # the group is durable, nobody has been told
        "call_log.before_reserve",
        "call_log.after_reserve",  # the row is durable, the provider has not been asked
        "call_log.before_end",  # the provider has answered, the row still says reserved
        "call_log.after_end",  # the ending is durable, the caller has no answer yet
        "ledger.before_commit",  # the shared actor has collected commands of many replicas, nothing is durable
        "ledger.after_commit_before_ack",  # they are durable, no replica has been told
        "sessions.before_append",  # a run's turns are only in its process
        "sessions.after_append",  # the turns are durable, the run has not answered
    }
)

Action = Callable[[], None]

# The one deliberate process-wide state: a failpoint is reached from code that knows nothing of tests.
_armed: dict[str, Action] = {}


def failpoint(name: str) -> None:
    """Do what `name` was armed with; nothing if it was not."""
    if _armed and (action := _armed.get(name)) is not None:
        action()


def arm(name: str, action: Action) -> None:
    """Run `action` whenever `name` is reached, from whatever thread reaches it."""
    if name not in FAILPOINTS:
        raise ValueError(f"There is no failpoint {name!r}; there are {', '.join(sorted(FAILPOINTS))}.")
    _armed[name] = action


@contextmanager
def armed(name: str, action: Action) -> Generator[None]:
    """`arm` for the length of a block."""
    arm(name, action)
    try:
        yield
    finally:
        _armed.pop(name, None)


def arm_from_environment(environ: Mapping[str, str]) -> None:
    """Arm what AGENTFLOW_FAILPOINTS names; raises ValueError if it is malformed."""
    for entry in filter(None, environ.get(VARIABLE, "").split(",")):
        name, _, verb = entry.strip().partition(":")
        verb, _, hit = verb.partition("@")
        arm(name, _at_hit(_action(name, verb), int(hit or 1)))


def _action(name: str, verb: str) -> Action:
    if verb == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if verb == "raise":
        return lambda: _fail(name)
    raise ValueError(f"Failpoint {name!r} cannot {verb!r}; it can kill or raise.")


def _fail(name: str) -> None:
    raise StoreUnavailableError(f"Failpoint {name} was reached.", outcome_unknown=True)


def _at_hit(action: Action, hit: int) -> Action:
    hits = itertools.count(1)

    def run() -> None:
        if next(hits) == hit:
            action()

    return run
