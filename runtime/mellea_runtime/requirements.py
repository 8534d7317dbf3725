"""Instruct, validate, repair: what an answer must fulfil, who says whether it does, and asking again until it does.

mellea's own sampling gives back the first failed answer when its budget is spent, and forgets an error of the
provider that comes after a failed answer. Here both are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mellea.stdlib.functional as mfuncs
from mellea.core import Context, Requirement, ValidationResult
from mellea.stdlib.components import Instruction

from mellea_runtime.errors import RequirementsUnmet

DEFAULT_REPAIRS = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement. `problem` says what is wrong with an answer, None for nothing; without it a model judges."""

    text: str
    problem: Callable[[str], str | None] | None = None

    def requirement(self) -> Requirement:
        if self.problem is None:
            return Requirement(self.text)
        problem = self.problem

        def validate(context: Context) -> ValidationResult:
            last = context.last_output()
            found = problem(last.value or "" if last is not None else "")
            return ValidationResult(found is None, reason=found)

        return Requirement(self.text, validation_fn=validate)


async def instructed(
    instruction: Instruction,
    context: Context,
    backend: Any,
    *,
    repairs: int = DEFAULT_REPAIRS,
    format: type[Any] | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[Any, Context]:
    """The first answer that fulfils every requirement of the instruction, and the context with the two.

    `repairs` is how often an answer that does not is asked for again, with the reasons. Raises RequirementsUnmet.
    """
    action = instruction
    for attempt in range(1, repairs + 2):
        answer, after = await backend.generate_from_context(action, context, format=format, model_options=options)
        await answer.avalue()
        failed = await _failed(instruction.requirements, after, backend, answer, options)
        if not failed:
            return answer, context.add(instruction).add(answer)
        if attempt <= repairs:
            reasons = "\n".join(f"* {reason}" for reason in failed.values())
            action = instruction.copy_and_repair(f"The following requirements failed before:\n{reasons}")
    count = repairs + 1
    tries = "the only answer" if count == 1 else f"the last of {count} answers"
    message = f"{tries} does not fulfil: {'; '.join(failed.values())}"
    raise RequirementsUnmet(message, failed=tuple(failed), answer=answer.value, attempts=count)


async def _failed(
    requirements: Sequence[Requirement], context: Context, backend: Any, answer: Any, options: dict[str, Any] | None
) -> dict[str, str]:
    """The requirements that are not fulfilled, with the reason of each."""
    if not requirements:
        return {}
    results = await mfuncs.avalidate(list(requirements), context, backend, output=answer, model_options=options)
    return {
        requirement.description or "a requirement": result.reason or requirement.description or "a requirement"
        for requirement, result in zip(requirements, results, strict=True)
        if not result
    }


