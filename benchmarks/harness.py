"""How the benchmarks measure: pairs in the order A B B A, medians of ratios, and a gate that forgives noise.

Machines are noisy, and two runs of the same program differ by a fifth: only what was measured side by side is
compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeVar

from rich.console import Console
from rich.table import Table

PAIRS = 6
SHORT_PAIRS = 3
LOOSE_AT_LEAST = 0.8
LOOSE_AT_MOST = 1.3

Bound = Literal["at most", "at least"]
Ours = TypeVar("Ours")
Baseline = TypeVar("Baseline")
Run = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure and what it should be. A figure without a `target` is there to be read."""

    name: str
    what: str
    value: float
    unit: str = "x"
    bound: Bound = "at most"
    target: float | None = None

    @property
    def meets_target(self) -> bool:
        return self._within(1.0, 1.0)

    @property
    def passes_gate(self) -> bool:
        """Whether the figure is near its target, or better: what a noisy machine can be held to."""
        return self._within(LOOSE_AT_MOST, LOOSE_AT_LEAST)

    def _within(self, most: float, least: float) -> bool:
        if self.target is None:
            return True
        return self.value <= self.target * most if self.bound == "at most" else self.value >= self.target * least


def paired(ours: Callable[[], Ours], baseline: Callable[[], Baseline], *, pairs: int) -> list[tuple[Ours, Baseline]]:
    """What both gave in each pair, (ours, baseline). The order turns with every pair, so that a drift cancels out."""
    results: list[tuple[Ours, Baseline]] = []
    for number in range(pairs):
        if number % 2 == 0:
            first = ours()
            results.append((first, baseline()))
        else:
            first = baseline()
            results.append((ours(), first))
    return results


def median_ratio(results: Iterable[tuple[float, float]]) -> float:
    """The median of ours / baseline over the pairs."""
    return median(ours / baseline for ours, baseline in results)


def timed(work: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> Run:
    """A run that gives the seconds that `work` takes; `time.process_time` as clock gives seconds of CPU."""

    def run() -> float:
        began = clock()
        work()
        return clock() - began

    return run


def pairs_for(short: bool) -> int:
    return SHORT_PAIRS if short else PAIRS


def show(figures: Sequence[Figure]) -> None:
    """The one table at the end. `ok` is "near" for a figure that misses its target and passes the gate."""
    table = Table(show_edge=False)
    for column in ("name", "what", "figure", "target", "ok"):
        table.add_column(column, overflow="fold", justify="right" if column in ("figure", "target") else "left")
    for figure in figures:
        target = "" if figure.target is None else f"{figure.bound} {figure.target:g} {figure.unit}"
        table.add_row(figure.name, figure.what, f"{figure.value:.3g} {figure.unit}", target, _verdict(figure))
    Console(width=150).print(table)


def _verdict(figure: Figure) -> str:
    if figure.target is None:
        return ""
    if figure.meets_target:
        return "yes"
    return "near" if figure.passes_gate else "NO"
