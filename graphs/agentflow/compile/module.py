"""The Python module of a flow: a class with a method for each node, and what a target needs around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Literal

from agentflow.compile.declarations import declared_flow, declared_node
from agentflow.compile.layout import STEP, WIDTH, Tree, most_columns, names_called, written
from agentflow.compile.names import class_name, plain
from agentflow.findings import PathStep, Place
from agentflow.ir import Code, Declarative, Flow
from agentflow.planning import Plan

Target = Literal["local", "ray", "kserve"]
TARGETS: tuple[Target, ...] = ("kserve", "ray", "local")
Places = Callable[[Sequence[PathStep]], Place | None]
"""Where a field of the flow stands in its file; `LoadedFlow.source_of` is one."""

FIRST_LINE = '"""{what} {name}, compiled by agentflow from {file}.'
_ABOUT = (
    "Each node is a method; above it stands what feeds the node and what its work is. A method may be changed by hand:",
    "what it returns are the outputs, what it raises goes to the error port. But the flow is the source; compiling it",
    "again does not write over a file that was changed by hand.",
)
MARK = ", compiled by agentflow from "
"""What the first line of every generated file has, and no other file."""


def module(plan: Plan, *, target: Target, places: Places) -> str:
    """The text of the module; the same for the same flow, places and target."""
    flow = declared_flow(plan)
    nodes = {name: declared_node(plan, name) for name in plan.settings}
    called = {name for tree in (flow, *nodes.values()) for name in names_called(tree)}
    lines = [*_docstring(plan, places), "", *_imports(called, target, has_nodes=bool(nodes)), "", ""]
    lines += [f"class {class_name(plan.name)}({_BASES[target]}):", f'{STEP}"""The flow {plain(plan.name)}."""', ""]
    lines += written(flow, indent=STEP, head="flow = ")
    for name, node in nodes.items():
        lines += ["", *_method(plan, name, node, places(("nodes", name)))]
    lines += ["", "", *_TAILS[target](class_name(plan.name))]
    return "\n".join(lines) + "\n"


def file_of(places: Places) -> str:
    """The name of the flow's file, without the folders on the way to it: they differ from machine to machine."""
    place = places(())
    return _file_name(place) if place else "its data"


def _file_name(place: Place) -> str:
    return plain(place.file.replace("\\", "/").rpartition("/")[2])


def _docstring(plan: Plan, places: Places) -> Iterator[str]:
    yield FIRST_LINE.format(what="The flow", name=plain(plan.name), file=file_of(places))
    yield ""
    yield from _ABOUT
    unneeded = [name for name in plan.flow.nodes if name not in plan.settings]
    if unneeded:
        yield ""
        yield "Left out, because no answer needs them and they do nothing else:"
        yield from (f"    {name}" for name in unneeded)
    yield '"""'


def _imports(called: Set[str], target: Target, *, has_nodes: bool) -> Iterator[str]:
    from_ir = {name for name in called if name.startswith("ir.")}
    words = {*(called - from_ir), *_FROM_COMPILED[target], *(("Context", "Inputs", "Outputs") if has_nodes else ())}
    lines: list[str] = []
    if from_ir:
        lines.append("from agentflow import ir")
    if target != "local":
        lines.append(f"from agentflow_serve.compiled import {', '.join(_FROM_SERVE[target])}")
    lines += _import("flow_runtime.compiled", sorted(words, key=_as_ruff_sorts))
    if target == "local":
        lines.append("from runtime_core.report import RunReport")
        yield from ("from typing import Any", "")
    if target == "ray":
        yield from ("from ray.serve import Application", "")
    yield from lines


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name[0].isupper() else 1), name


def _import(source: str, names: Sequence[str]) -> Iterator[str]:
    line = f"from {source} import {', '.join(names)}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"from {source} import ("
    yield from (f"{STEP}{name}," for name in names)
    yield ")"


def _method(plan: Plan, name: str, declared: Tree, place: Place | None) -> Iterator[str]:
    where = f"{_file_name(place)}:{place.line}" if place else ""
    if where:
        yield f"{STEP}# {where}"
    yield from written(declared, indent=STEP, head="@")
    yield from _definition(f"node_{name}")
    yield f'{STEP}{STEP}"""{_summary(plan, name)}"""'
    work = f'{STEP}{STEP}return await self.body("{name}", inputs, ctx)'
    yield _commented(work, (where, f"{place.line}") if place else ())


def _definition(name: str) -> Iterator[str]:
    line = f"{STEP}async def {name}(self, inputs: Inputs, ctx: Context) -> Outputs:"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{STEP}async def {name}("
    yield from (f"{STEP}{STEP}{parameter}," for parameter in ("self", "inputs: Inputs", "ctx: Context"))
    yield f"{STEP}) -> Outputs:"


def _commented(line: str, comments: Iterable[str]) -> str:
    """The line with the first comment that has room behind it; tracebacks show it with the line."""
    with_comment = (f"{line}  # {comment}" for comment in comments)
    return next((each for each in with_comment if most_columns(each) <= WIDTH), line)


def _summary(plan: Plan, name: str) -> str:
    """What a node does, in one sentence."""
    node = plan.node(name)
    parts = [" and ".join(_works(plan, name)) or "does nothing"]
    parts += [f"for each of {node.for_each.input}"] if node.for_each else []
    parts += ["until its loop ends"] if node.loop else []
    sentence = ", ".join(parts)
    sentence = sentence[0].upper() + sentence[1:]
    if name in plan.tools:
        return f"{sentence}; a model asks for it."
    if plan.graph.handles_failure(name) and node.error is not None:
        return f"{sentence}; a failure goes to {node.error.name}."
    return f"{sentence}."


def _works(plan: Plan, name: str) -> Iterator[str]:
    node, model = plan.node(name), plan.settings[name].model
    if model is not None:
        yield f"asks {plain(model if isinstance(model, str) else model.name)}"
    if isinstance(node.flow, Flow):
        yield f"runs the flow {plain(node.flow.metadata.name)}"
    match node.transform:
        case Declarative(spec=spec):
            yield f"runs {plain(spec.op)}"
        case Code():
            yield "runs code"
        case None:
            pass


def _local(name: str) -> Iterator[str]:
    yield "async def run(request: dict[str, Any], **options: Any) -> RunReport:"
    yield f'{STEP}"""One request through the flow, with the options of `flow_runtime.run`."""'
    yield f"{STEP}return await run_agent({name}, request, **options)"


def _ray(name: str) -> Iterator[str]:
    yield "def app(args: AgentArgs) -> Application:"
    yield f'{STEP}"""The application: `serve run agent:app llmhub=llmhub.yaml`."""'
    yield f"{STEP}return application({name}, args)"


def _kserve(name: str) -> Iterator[str]:
    yield 'if __name__ == "__main__":'
    yield f"{STEP}serve_model({name}())"


_BASES: dict[Target, str] = {"local": "LocalAgent", "ray": "LocalAgent", "kserve": "KServeAgent"}
_FROM_COMPILED: dict[Target, tuple[str, ...]] = {
    "local": ("LocalAgent", "run_agent"),
    "ray": ("LocalAgent",),
    "kserve": (),
}
_FROM_SERVE: dict[Target, tuple[str, ...]] = {
    "ray": ("AgentArgs", "application"),
    "kserve": ("KServeAgent", "serve_model"),
    "local": (),
}
_TAILS: dict[Target, Callable[[str], Iterator[str]]] = {"local": _local, "ray": _ray, "kserve": _kserve}
