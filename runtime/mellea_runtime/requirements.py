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
    """One requirement. `problem` says what is wrong with an answer, None for nothing; without it a model judges.

    One that is not `told` stays out of the prompt.
    """

    text: str
    problem: Callable[[str], str | None] | None = None
    told: bool = True

    def requirement(self) -> Requirement:
        if self.problem is None:
            return Requirement(self.text, check_only=not self.told)
        problem = self.problem

        def validate(context: Context) -> ValidationResult:
            last = context.last_output()
            found = problem(last.value or "" if last is not None else "")
            return ValidationResult(found is None, reason=found)

        return Requirement(self.text, validation_fn=validate, check_only=not self.told)


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
    action, attempts = instruction, 0
    while True:
        answer, after = await backend.generate_from_context(action, context, format=format, model_options=options)
        await answer.avalue()
        attempts += 1
        failed = await _failed(instruction.requirements, after, backend, answer, options)
        if not failed:
            return answer, context.add(instruction).add(answer)
        if attempts > repairs:
            tries = "the only answer" if attempts == 1 else f"the last of {attempts} answers"
            message = f"{tries} does not fulfil: {'; '.join(failed.values())}"
            raise RequirementsUnmet(message, failed=tuple(failed), answer=answer.value, attempts=attempts)
        reasons = "\n".join(f"* {reason}" for reason in failed.values())
        action = instruction.copy_and_repair(f"The following requirements failed before:\n{reasons}")


async def _failed(
    requirements: Sequence[Requirement], context: Context, backend: Any, answer: Any, options: dict[str, Any] | None
) -> dict[str, str]:
    """The requirements that are not fulfilled, with the reason of each.

    A model judges only what passes every check that costs nothing.
    """
    computed = [each for each in requirements if each.validation_fn is not None]
    judged = [each for each in requirements if each.validation_fn is None]
    for group in (computed, judged):
        if not group:
            continue
        results = await mfuncs.avalidate(group, context, backend, output=answer, model_options=options)
        failed = {
            requirement.description or "a requirement": result.reason or requirement.description or "a requirement"
            for requirement, result in zip(group, results, strict=True)
            if not result
        }
        if failed:
            return failed
    return {}
