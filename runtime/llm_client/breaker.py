"""A circuit breaker: a model that keeps failing is left alone for a while, then tried with one call.

closed --(failures in a row)--> open --(cooldown is over)--> one probe --success--> closed
                                                                       --failure--> open

Pure: the state is a value, the time an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """`failure_threshold` failures in a row open the circuit of a provider's model for `cooldown_s`."""

    failure_threshold: int = 5
    cooldown_s: float = 30.0


@dataclass(frozen=True, slots=True)
class BreakerState:
    """`open_until` is None while the circuit is closed; `probing` while the one call after a cooldown runs."""

    failures: int = 0
    open_until: float | None = None
    probing: bool = False


CLOSED = BreakerState()


def wait_s(state: BreakerState, config: BreakerConfig, now: float) -> float | None:
    """None if a call may go now, else the seconds until it is worth asking again."""
    if state.open_until is None:
        return None
    if state.probing:
        return config.cooldown_s
    return state.open_until - now if now < state.open_until else None


def admitted(state: BreakerState) -> BreakerState:
    """A call goes. The first one after a cooldown is the probe."""
    return state if state.open_until is None else replace(state, probing=True)


def after(state: BreakerState, config: BreakerConfig, now: float, *, succeeded: bool | None) -> BreakerState:
    """A call is over; None when it says nothing about the model (cancelled, or refused for its own faults)."""
    if succeeded:
        return CLOSED
    if succeeded is None:
        return replace(state, probing=False) if state.probing else state
    if state.open_until is not None and not state.probing:
        return state  # a straggler from before the circuit opened
    failures = state.failures + 1
    if state.probing or failures >= config.failure_threshold:
        return BreakerState(failures=failures, open_until=now + config.cooldown_s)
    return replace(state, failures=failures)


class Breakers:
    """The circuits of an engine, one for each provider and model."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._states: dict[tuple[str, str], BreakerState] = {}
        self._forgotten: dict[str, int] = {}

    def life(self, provider: str) -> int:
        """How often the provider was forgotten. What a call of an earlier life found out is not about this one."""
        return self._forgotten.get(provider, 0)

    def admit(self, key: tuple[str, str], now: float) -> float | None:
        """None if a call of `key` goes, and counts as the probe if it is one; else the seconds to wait."""
        state = self._states.get(key)
        if state is None:
            return None
        wait = wait_s(state, self._config, now)
        if wait is None:
            self._states[key] = admitted(state)
        return wait

    def forget(self, provider: str) -> None:
        """The provider is another one now, such as one that was restarted elsewhere."""
        self._states = {key: state for key, state in self._states.items() if key[0] != provider}
        self._forgotten[provider] = self.life(provider) + 1

    def report(self, key: tuple[str, str], now: float, *, succeeded: bool | None) -> str | None:
        """A call that was admitted is over. `open` or `close` if that changed the circuit."""
        state = self._states.get(key)
        if state is None:
            if succeeded is not False:
                return None
            state = CLOSED
        new = after(state, self._config, now, succeeded=succeeded)
        if new == CLOSED:
            self._states.pop(key, None)
            return "close" if state.open_until is not None else None
        self._states[key] = new
        return "open" if new.open_until is not None and new.open_until != state.open_until else None
