"""`agentflow plan`: what a flow becomes, before anything is started."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentflow_serve.commands.paths import DOCUMENT

if TYPE_CHECKING:
    from agentflow.ir import Node
    from agentflow.planning import Plan

WIDTH = 120
"""Columns of the table where the terminal is narrower, or none: a table that wraps is no table."""


@click.command("plan")
@click.argument("flow", type=DOCUMENT)
@click.option("--placement", type=click.Choice(["per_node", "inline"]), help="Overrule the flow's own placement.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print the graph as a mermaid flowchart instead.")
def command(flow: Path, placement: str | None, as_mermaid: bool) -> None:
    """Show the nodes of FLOW, the stages they run in, the critical path and what each placement costs."""
    from agentflow.diagram import mermaid
    from agentflow.levels import critical_path
    from agentflow.loading import load
    from agentflow.placement import HANDLE_CALL_CPU_MS, placement_of, stages
    from agentflow.planning import plan

    loaded = load(flow)
    if as_mermaid:
        click.echo(mermaid(loaded.flow))
        return
    planned = plan(loaded.flow)
    _show_nodes(planned, placement)
    path = critical_path(planned)
    click.echo(f"critical path: {' -> '.join(path) or 'none'}")
    left_out = [node for node in loaded.flow.nodes if node not in planned.settings]
    if left_out:
        click.echo(f"not needed by any answer, never run: {', '.join(left_out)}")
    for choice in ("per_node", "inline"):
        hops = sum(placement_of(planned, node, choice) != "inline" for node in planned.graph.nodes)
        tools = sum(placement_of(planned, node, choice) != "inline" for node in planned.tools)
        deployments = len([stage for stage in stages(planned, choice) if stage.deployment])
        click.echo(
            f"{choice + ':':<9} {deployments + 1:>3} deployments, {hops:>3} hops at most, "
            f"about {hops * HANDLE_CALL_CPU_MS:g} ms of CPU for the hops of a request"
            + (", one more for each call of a tool" if tools else "")
        )
    click.echo(f"fingerprint: {planned.fingerprint}")


def _show_nodes(planned: Plan, placement: str | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from agentflow.levels import levels
    from agentflow.placement import placement_of, stages

    table = Table(title=f"{planned.name}: {len(planned.settings)} nodes", box=SIMPLE_HEAD, title_justify="left")
    for column in ("level", "node", "does", "runs in", "timeout", "attempts", "after"):
        table.add_column(column, overflow="fold")
    stage_of = {node: stage for stage in stages(planned, placement) for node in stage.nodes}  # pyright: ignore
    for number, level in enumerate(levels(planned.graph)):
        for node in level:
            before = dict.fromkeys(wire.source or "_input" for wire in planned.graph.incoming.get(node, ()))
            table.add_row(
                str(number),
                *_does(planned, node),
                stage_of[node].deployment or planned.name,
                *_tries(planned, node, before),
            )
    for tool in planned.tools:
        callers = [node for node in planned.settings if tool in planned.settings[node].tools]
        place = "its caller" if placement_of(planned, tool, placement) == "inline" else stage_of[tool].deployment  # pyright: ignore
        table.add_row("tool", *_does(planned, tool), place, *_tries(planned, tool, callers))
    Console(width=max(Console().width, WIDTH)).print(table)


def _does(planned: Plan, node: str) -> tuple[str, str]:
    return node, describe(planned.node(node))


def _tries(planned: Plan, node: str, after: Iterable[str]) -> tuple[str, str, str]:
    settings = planned.settings[node]
    return f"{settings.timeout_s:g} s", str(settings.attempts), ", ".join(after)


def describe(node: Node) -> str:
    """A node's work in a few words: `prompt + http.post, acts`."""
    from agentflow.ir import Code, Declarative, Flow
    from agentflow.planning import acts

    parts = [] if node.prompt is None else ["prompt with tools" if node.prompt.tools else "prompt"]
    if isinstance(node.flow, Flow):
        parts.append(f"flow {node.flow.metadata.name}")
    match node.transform:
        case Declarative():
            parts.append(node.transform.spec.op)
        case Code():
            parts.append("code")
        case None:
            pass
    return " + ".join(parts) + (", acts" if acts(node) else "")
