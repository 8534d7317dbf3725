"""What a scenario says about itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from faults.books import Books
from faults.checker import INVARIANTS, check

MOST_SHOWN = 20


@dataclass
class Report:
    """`did` are sentences with the numbers, `checked` the invariants and what else was looked at.

    `missed` are the numbers that were to be reached and were not.
    """

    name: str
    did: list[str] = field(default_factory=list[str])
    checked: list[str] = field(default_factory=list[str])
    violations: list[str] = field(default_factory=list[str])
    missed: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        self.did.append(text)

    def reach(self, what: str, found: int, wanted: int) -> None:
        """How far the scenario came; one that did less than it says has shown less than it says."""
        told = f"{found:,} of {wanted:,} {what}"
        self.say(told)
        if found < wanted:
            self.missed.append(told)

    def expect(self, what: str, holds: object, found: object = "") -> None:
        """A check of the scenario's own, named once for all of its rounds."""
        if what not in self.checked:
            self.checked.append(what)
        if not holds:
            self.violations.append(f"{what}: not so ({found})" if found != "" else f"{what}: not so")

    def check(self, books: Books, *invariants: str, where: str = "") -> None:
        """The checker's verdict on these books; `invariants` are those that they say something about."""
        self.checked += [name for name in invariants if name not in self.checked]
        prefix = f"{where}: " if where else ""
        self.violations += [f"{prefix}{violation}" for violation in check(books)]

    def end(self) -> Report:
        self.seconds = time.monotonic() - self.began
        return self


def lines(report: Report) -> Sequence[str]:
    """As it is printed."""
    shown = [f"VIOLATION {text}" for text in report.violations[:MOST_SHOWN]]
    if len(report.violations) > MOST_SHOWN:
        shown.append(f"... and {len(report.violations) - MOST_SHOWN} more")
    return (
        f"{report.name} ({report.seconds:.0f} s)",
        *(f"  {text}" for text in (*report.did, f"checked: {'; '.join(report.checked)}", *shown)),
    )


def closing(reports: Sequence[Report], *, short: bool) -> tuple[Sequence[str], bool]:
    """What is printed in the end, and whether the run holds: without a violation and, unless `short`, complete."""
    met = {name for report in reports for name in report.checked}
    missed = [f"NOT REACHED by {report.name}: {told}" for report in reports for told in report.missed]
    count = sum(len(report.violations) for report in reports)
    told = (f"{name}: {text}" for name, text in INVARIANTS.items() if name in met)
    return (*told, *([] if short else missed), f"{count} violations"), not count and (short or not missed)
