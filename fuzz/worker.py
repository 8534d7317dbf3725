"""One process that runs inputs one after the other, measures each, and writes down what it found."""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzz.mutate import mutated
from fuzz.targets import Target, targets
from fuzz.watch import ForbiddenEffect, install

HANG_S = 1.0
GROWTH_MIB = 64
MINIMISING_S = 5.0


class Hang(BaseException):
    """An input took too much CPU time."""


@dataclass
class Tally:
    """What one target did. Milliseconds of CPU of every refusal; MiB by which one input made the process grow."""

    runs: int = 0
    refused: int = 0
    refusals_ms: list[float] = field(default_factory=list[float])
    growth_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    accepted: bool
    cpu_ms: float
    growth_mib: float
    problem: str | None = None
    """`kind: what happened`; None for an input that was accepted or refused as it should be."""


def input_of(target: Target, *, seed: int, index: int) -> bytes:
    """The input `index` of a target."""
    choose = random.Random(f"{seed}:{target.name}:{index}")
    return mutated(choose.choice(target.seeds), others=target.seeds, choose=choose)


def run_one(target: Target, data: bytes) -> Outcome:
    """Run one input within its limit of CPU time."""
    signal.signal(signal.SIGPROF, _too_long)
    resident, peak = _resident_mib(), _peak_mib()
    start = time.thread_time()
    accepted, problem = False, None
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        accepted = target.run(data)
    except target.refuses:
        pass
    except Hang:
        problem = f"hang: more than {HANG_S:g} s of CPU"
    except ForbiddenEffect as exc:
        problem = f"effect: {exc}"
    except Exception as exc:  # noqa: BLE001 - what the fuzzer is for
        where = traceback.extract_tb(exc.__traceback__)[-1]
        problem = f"crash: {type(exc).__name__} in {where.name}: {ascii(str(exc))[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    cpu_ms = (time.thread_time() - start) * 1000
    grown = _peak_mib() - resident if _peak_mib() > peak else 0.0
    if problem is None and grown > GROWTH_MIB:
        problem = f"memory: {grown:.0f} MiB"
    return Outcome(accepted, cpu_ms, grown, problem)


def minimised(target: Target, data: bytes, problem: str) -> bytes:
    """A shorter input with the same kind of problem, as far as a few seconds of trying lead."""
    kind = problem.split(" in ")[0].partition(":")[0]
    give_up = time.monotonic() + MINIMISING_S
    size = len(data) // 2
    while size >= 1:
        at = 0
        while at < len(data):
            if time.monotonic() > give_up:
                return data
            shorter = data[:at] + data[at + size :]
            found = run_one(target, shorter).problem
            if found is not None and found.startswith(kind):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _too_long(*_: object) -> None:
    raise Hang


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _peak_mib() -> float:
    """Of this program: getrusage begins with the peak of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def work(*, seed: int, first: int, step: int, seconds: float, most: int | None, folder: Path) -> None:
    """Run the inputs `first`, `first + step`, ... of every target until the time or `most` inputs are over."""
    all_targets = targets()
    for target in all_targets:
        for data in dict.fromkeys(target.seeds):
            run_one(target, data)  # what is imported and cached at the first use
    install()
    progress = folder / f"progress-{first}"
    tallies = {target.name: Tally() for target in all_targets}
    findings: list[dict[str, Any]] = []
    give_up = time.monotonic() + seconds
    index = first
    while time.monotonic() < give_up and (most is None or index < most) and len(findings) < 20:
        for target in all_targets:
            data = input_of(target, seed=seed, index=index)
            progress.write_text(f"{target.name}\t{index}")
            outcome = run_one(target, data)
            _count(tallies[target.name], outcome)
            if outcome.problem is not None and _is_new(outcome.problem, findings):
                data = minimised(target, data, outcome.problem)
                saved = folder / f"{target.name.replace(' ', '-')}-{seed}-{index}"
                saved.write_bytes(data)
                findings.append({"target": target.name, "index": index, "problem": outcome.problem, "file": saved.name})
        index += step
    report = {"tallies": {name: asdict(tally) for name, tally in tallies.items()}, "findings": findings}
    (folder / f"report-{first}.json").write_text(json.dumps(report))


def _count(tally: Tally, outcome: Outcome) -> None:
    tally.runs += 1
    tally.growth_mib = max(tally.growth_mib, outcome.growth_mib)
    if not outcome.accepted:
        tally.refused += 1
        tally.refusals_ms.append(round(outcome.cpu_ms, 3))


def _is_new(problem: str, findings: list[dict[str, Any]]) -> bool:
    return problem not in {finding["problem"] for finding in findings}


def replay(path: Path, *, report: Callable[[str], None]) -> bool:
    """Run one saved input again; whether it is fine now."""
    name = path.name.rsplit("-", 2)[0].replace("-", " ")
    [target] = [each for each in targets() if each.name == name]
    for data in target.seeds[:3]:
        run_one(target, data)
    install()
    outcome = run_one(target, path.read_bytes())
    report(f"{path.name}: {outcome.problem or 'fine'} ({outcome.cpu_ms:.1f} ms, {outcome.growth_mib:.0f} MiB)")
    return outcome.problem is None


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    work(**{**told, "folder": Path(told["folder"])})
