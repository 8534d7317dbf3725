"""A plan first, then its steps, then an answer made of what came of them."""

from __future__ import annotations

from typing import Any

from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.map_reduce import for_item
from agent_runtime.orchestration.operators import Operator, Runnable, as_operator
from agent_runtime.orchestration.plans import STEPS, steps_of
from agent_runtime.orchestration.results import TEXT, OperatorResult, text_of


class PlannerExecutorOperator(Operator):
    """Plan then execute (source: agent-runtime, Built-in Patterns). All three are operators, agents or functions.

    The planner's answer is a plan if it has a list `steps` in its data, is a list, or is text: JSON, or a line with a
    bullet or a number for every step. The executor runs once for each step, one after the other, and is given the
    input with `step`, `index`, the step as `text`, and what came of earlier steps as `previous`; `parallel=True` runs
    them side by side, without `previous`. The synthesizer is given the input with `steps`, `results` and both as
    `text`; without one the answer is the list of results. A plan without steps goes to the synthesizer as it is.
    """

    def __init__(
        self,
        *,
        planner: Runnable,
        executor: Runnable,
        synthesizer: Runnable | None = None,
        parallel: bool = False,
        name: str = "plan_execute",
    ) -> None:
        super().__init__()
        self._name = name
        self._planner = as_operator(planner, "planner")
        self._executor = as_operator(executor, "executor")
        self._synthesizer = None if synthesizer is None else as_operator(synthesizer, "synthesizer")
        self._parallel = parallel

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        children = Children(context)
        planned = await children.run("planner", self._planner, input_data)
        parts = {"planner": planned}
        if not planned.success:
            return planned.failing("planner", parts)
        steps = steps_of(planned)
        children.expect(len(steps) + (self._synthesizer is not None))
        failure = await self._steps(children, steps, input_data, parts)
        if failure is not None:
            return failure
        results = [part.content for name, part in parts.items() if name != "planner"]
        if self._synthesizer is None:
            return OperatorResult(content=results, data={STEPS: steps, "results": results}).over(parts)
        lines = [f"{text_of(step)}\n{text_of(result)}" for step, result in zip(steps, results, strict=True)]
        text = "\n\n".join(lines) or text_of(planned.content)
        given = {**input_data, STEPS: steps, "results": results, TEXT: text}
        answer = parts["synthesizer"] = await children.run("synthesizer", self._synthesizer, given)
        return answer.over(parts) if answer.success else answer.failing("synthesizer", parts)

    async def _steps(
        self, children: Children, steps: list[Any], input_data: dict[str, Any], parts: dict[str, OperatorResult]
    ) -> OperatorResult | None:
        """Adds a part for every step; the failure of the whole where one fails."""
        given = [{**for_item(input_data, step, index), "step": step} for index, step in enumerate(steps)]
        names = [f"step[{index}]" for index in range(len(steps))]
        if self._parallel:
            calls = [(name, self._executor, each) for name, each in zip(names, given, strict=True)]
            parts |= zip(names, await children.all(calls, stop_on_failure=True), strict=True)
        else:
            previous: list[Any] = []
            for name, each in zip(names, given, strict=True):
                result = parts[name] = await children.run(name, self._executor, {**each, "previous": [*previous]})
                if not result.success:
                    break
                previous.append(result.content)
        failed = [name for name, part in parts.items() if not part.success]
        name = next((name for name in failed if parts[name].code != "cancelled"), failed[0] if failed else None)
        return None if name is None else parts[name].failing(name, parts)
