"""What a run and everything below it has taken, held against its limits."""

from __future__ import annotations

from decimal import Decimal

from agent_runtime.errors import BudgetExceededError
from llm_client.results import CompletionResult
from runtime_core.clock import Clock
from runtime_core.context import BudgetSpec
from runtime_core.report import NO_USE, ModelUse

MICRO = 1_000_000
NO_LIMITS = BudgetSpec()


class Meter:
    """Counts one run; what it counts, the runs above it count as well.

    `turns` and `tool_calls` count what was begun, `use` what was answered.
    Turns and tool calls are counted before they are made and never exceed their limits. Tokens and cost are known
    afterwards: a limit may be passed by the calls that are in flight when it is reached, and nothing starts then.
    Without `inherits` the limits of the runs above do not apply here.
    """

    __slots__ = ("_above", "_began", "_bound_by", "_clock", "limits", "tool_calls", "turns", "use")

    def __init__(
        self, limits: BudgetSpec | None, *, clock: Clock, above: Meter | None = None, inherits: bool = True
    ) -> None:
        self.limits = limits or NO_LIMITS
        self.turns = 0
        self.tool_calls = 0
        self.use = NO_USE
        self._clock = clock
        self._above = above
        self._bound_by = above if inherits else None
        self._began = clock.monotonic()

    def child(self, limits: BudgetSpec | None = None, *, inherits: bool = True) -> Meter:
        return Meter(limits, clock=self._clock, above=self, inherits=inherits)

    def rest(self) -> BudgetSpec:
        """What may still be taken: the tightest of every limit that applies."""
        above = NO_LIMITS if self._bound_by is None else self._bound_by.rest()
        if self.limits is NO_LIMITS:
            return above
        return self._own_rest() if above is NO_LIMITS else self._own_rest().within(above)

    def check(self) -> None:
        """Raises BudgetExceededError where nothing more can be asked of a model."""
        self._refuse(tool_call=False)

    def begin_turn(self) -> None:
        """Raises BudgetExceededError."""
        self.check()
        for meter in self._all():
            meter.turns += 1

    def begin_tool_call(self) -> None:
        """Raises BudgetExceededError."""
        self._refuse(tool_call=True)
        for meter in self._all():
            meter.tool_calls += 1

    def heard(self, result: CompletionResult) -> None:
        """A cached answer took nothing but its turn."""
        use = NO_USE if result.cached else _use(result)
        for meter in self._all():
            meter.use += use

    def _all(self) -> list[Meter]:
        found: list[Meter] = []
        meter: Meter | None = self
        while meter is not None:
            found.append(meter)
            meter = meter._above
        return found

    def _own_rest(self) -> BudgetSpec:
        limits, use = self.limits, self.use
        cost = Decimal(use.cost_micro) / MICRO
        ran = self._clock.monotonic() - self._began
        return BudgetSpec(
            max_tokens=None
            if limits.max_tokens is None
            else max(0, limits.max_tokens - use.input_tokens - use.output_tokens),
            max_cost=None if limits.max_cost is None else max(Decimal(0), limits.max_cost - cost),
            max_tool_calls=_left(limits.max_tool_calls, self.tool_calls),
            max_turns=_left(limits.max_turns, self.turns),
            max_runtime_seconds=None
            if limits.max_runtime_seconds is None
            else max(0.0, limits.max_runtime_seconds - ran),
        )

    def _refuse(self, *, tool_call: bool) -> None:
        meter: Meter | None = self
        while meter is not None:
            if (spent := meter._spent(tool_call=tool_call)) is not None:
                limit, message = spent
                raise BudgetExceededError(message, reason=limit, limit=limit)
            meter = meter._bound_by

    def _spent(self, *, tool_call: bool) -> tuple[str, str] | None:
        """The limit that leaves no room, and a sentence about it."""
        if self.limits is NO_LIMITS:
            return None
        rest, limits = self._own_rest(), self.limits
        if rest.max_tokens == 0:
            return "max_tokens", f"The budget of {limits.max_tokens} tokens is spent."
        if rest.max_cost == 0:
            return "max_cost", f"The budget of ${limits.max_cost} is spent."
        if rest.max_runtime_seconds == 0:
            return "max_runtime_seconds", f"The run may take {limits.max_runtime_seconds:g} s, and they are over."
        if limits.max_cost is not None and self.use.unpriced:
            return "max_cost", "The run has a budget in money and calls a model whose price is not known: give it one."
        if tool_call and rest.max_tool_calls == 0:
            return "max_tool_calls", (
                f"This run may make {limits.max_tool_calls} tool calls, and it has made them; "
                "answer with what is known."
            )
        if not tool_call and rest.max_turns == 0:
            return "max_turns", f"The run may ask models {limits.max_turns} times, and it has."
        return None


def _left(limit: int | None, taken: int) -> int | None:
    return None if limit is None else max(0, limit - taken)


def _use(result: CompletionResult) -> ModelUse:
    return ModelUse(
        calls=1,
        input_tokens=result.usage.input,
        output_tokens=result.usage.output,
        cost_micro=result.cost_micro or 0,
        unpriced=int(result.cost_micro is None),
        estimated=int(result.usage.estimated),
    )
