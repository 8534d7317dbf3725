"""Whether Python and the libraries are those that this package was made for."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from agentflow_serve.doctor.checks import Check, fail, ok, warn
from agentflow_serve.doctor.facts import Library, Machine


def check_installation(machine: Machine) -> Iterator[Check]:
    yield _python(machine)
    if not machine.libraries:
        yield warn(
            "libraries",
            "agentflow-serve is not installed as a package here, so nobody can say which libraries it needs",
            "install it: pip install agentflow-serve",
        )
        return
    needed = [library for library in machine.libraries if library.extra is None]
    wrong = [library for library in needed if not fits(library)]
    for library in wrong:
        yield fail(f"library.{library.name}", _says(library), f"pip install '{library.name}{library.asked}'")
    if not wrong:
        yield ok("libraries", f"all {len(needed)} libraries are there, in versions that fit")
    for extra in dict.fromkeys(library.extra for library in machine.libraries if library.extra):
        yield _extra(extra, [library for library in machine.libraries if library.extra == extra])


def fits(library: Library) -> bool:
    return library.installed is not None and SpecifierSet(library.asked).contains(library.installed, prereleases=True)


def _python(machine: Machine) -> Check:
    asked = machine.python_asked
    if asked and not SpecifierSet(asked).contains(machine.python, prereleases=True):
        return fail("python", f"Python {machine.python} does not fit {asked}", "make the environment with another one")
    return ok("python", f"Python {machine.python}")


def _extra(extra: str, libraries: list[Library]) -> Check:
    name, install = f"extra.{extra}", f"pip install 'agentflow-serve[{extra}]'"
    missing = [library.name for library in libraries if library.installed is None]
    if missing:
        return ok(name, f"the extra '{extra}' is not installed ({', '.join(missing)}); flows that need it: {install}")
    wrong = [library for library in libraries if not fits(library)]
    if wrong:
        return warn(name, f"the extra '{extra}': {_says(wrong[0])}", install)
    there = ", ".join(f"{library.name} {library.installed}" for library in libraries)
    return ok(name, f"the extra '{extra}' is installed: {there}")


def _says(library: Library) -> str:
    if library.installed is None:
        return f"{library.name} is missing"
    return f"{library.name} {library.installed} is installed, and {library.name}{library.asked} is needed"
