"""The part of the lock file that a flow needs: the closure of its requirements, each with the hashes of the lock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from agentflow_serve.errors import PackageInvalid

LOCK = "requirements.lock"
_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")
ADDRESSES = re.compile(r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b|\b\w+://", re.MULTILINE)


def installed_lock() -> Path:
    """The lock that this package came with: inside it, beside its sources, or among the data of its wheel."""
    here = Path(__file__).resolve()
    places = [here.parent.parent / LOCK, here.parents[3] / LOCK]
    with suppress(metadata.PackageNotFoundError):
        files = metadata.distribution("agentflow-serve").files or ()
        places += [Path(str(file.locate())) for file in files if file.name == LOCK]
    for place in places:
        if place.is_file():
            return place
    raise PackageInvalid("this installation has no requirements.lock: name one with --lock")


def read_lock(text: str) -> dict[str, str]:
    """Every entry, with its hashes, by the normal name of its distribution. Raises PackageInvalid."""
    if ADDRESSES.search(text):
        raise PackageInvalid("the lock file names an index or an address: a lock has names, versions and hashes")
    entries: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        if found := _ENTRY.match(line):
            name = canonicalize_name(found[1])
            entries[name] = line
        elif line.startswith((" ", "\t")) and name is not None:
            entries[name] += f"\n{line}"
    for name, entry in entries.items():
        if "--hash=" not in entry:
            raise PackageInvalid(f"the lock file has no hash for {name}: make it with --generate-hashes")
    return entries


def closure(roots: Iterable[str]) -> frozenset[str]:
    """The distributions that these need, their own needs included, as the ones that are installed here say.

    Raises PackageInvalid where one is not installed.
    """
    waiting = [Requirement(root) for root in roots]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in done:
            continue
        done.add(key)
        waiting += _needs(wanted)
    return frozenset(name for name, _ in done)


def locked_part(lock: Mapping[str, str], names: Iterable[str]) -> str:
    """The requirements file of these distributions. Raises PackageInvalid for one that the lock does not have."""
    wanted = sorted(names)
    missing = [name for name in wanted if name not in lock]
    if missing:
        raise PackageInvalid(f"the lock file does not have {', '.join(missing)}, which the flow needs: renew it")
    return "".join(f"{lock[name]}\n" for name in wanted)


def _needs(wanted: Requirement) -> list[Requirement]:
    try:
        distribution = metadata.distribution(wanted.name)
    except metadata.PackageNotFoundError as exc:
        raise PackageInvalid(
            f"the flow needs {wanted.name}, which is not installed here: pip install '{wanted}'"
        ) from exc
    found: list[Requirement] = []
    for text in distribution.requires or ():
        try:
            each = Requirement(text)
        except InvalidRequirement:
            continue
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}):
            found.append(each)
    return found
