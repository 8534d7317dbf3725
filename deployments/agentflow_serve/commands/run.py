"""`agentflow run`: one request through a flow in this process, with what every node does as it happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.options import budgets_option, embedder_option, feature_store_option, policy_option
from agentflow_serve.commands.paths import DOCUMENT
from runtime_core.stores.url import DEFAULT_STORE

if TYPE_CHECKING:
    from agentflow.ir import Flow
    from runtime_core.report import NodeStatus, RunReport

MARKS: dict[NodeStatus | None, str] = {
    None: "start",
    "succeeded": "done",
    "failed": "FAILED",
    "skipped": "skipped",
    "cancelled": "cancelled",
}


def _hosts(_context: click.Context, _option: click.Parameter, entries: tuple[str, ...]) -> tuple[str, ...]:
    if not entries:
        return ()
    from flow_runtime.operations.hosts import AllowedHost

    try:
        return tuple(str(AllowedHost.parse(entry)) for entry in entries)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def _deadline(_context: click.Context, _option: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= 86_400:
        raise click.BadParameter(f"{seconds:g} is not a number of seconds above 0 and at most 86400, a day")
    return seconds


@click.command("run")
@click.argument("flow", type=DOCUMENT)
@click.option("--input", "request", required=True, help="The request: JSON, or @FILE.")
@click.option("--llmhub", type=DOCUMENT, help="The models of the roles.")
@click.option("--store", default=DEFAULT_STORE, show_default=True, help="For `backend: store`.")
@click.option("--code", type=click.Choice(["inline", "modules", "off"]), default="inline", show_default=True)
@click.option(
    "--allow-host", multiple=True, callback=_hosts, help="A private or plain-http host[:port] that the flow may call."
)
@feature_store_option
@embedder_option
@budgets_option
@policy_option
@click.option("--deadline", type=float, callback=_deadline, help="Seconds that the run may take, at most a day.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: output, nodes, trace_id, error.")
def command(
    flow: Path,
    request: str,
    llmhub: Path | None,
    store: str,
    code: str,
    allow_host: tuple[str, ...],
    feature_store: str | None,
    embedder: str | None,
    budgets: Path | None,
    policy: Path | None,
    deadline: float | None,
    as_json: bool,
) -> int:
    """Run one request through FLOW in this process."""
    if budgets is not None and llmhub is None:
        raise click.UsageError("--budgets count the calls of models: name these with --llmhub")
    from agentflow.loading import load

    loaded = load(flow)
    fields = _request(request)
    from flow_runtime.local import LocalSettings

    settings = LocalSettings(
        store=store,
        code=code,  # pyright: ignore[reportArgumentType]
        allow_hosts=allow_host,
        feature_store=feature_store,
        embedder=embedder,
        **_rules(loaded.flow, llmhub, budgets, policy, embedder=embedder),
    )
    report = _checked(asyncio.run(_run(loaded.flow, fields, llmhub, settings, deadline, quiet=as_json)))
    if as_json:
        click.echo(json.dumps(_document(report), indent=2))
    elif report.error is None:
        click.echo(json.dumps(report.output, indent=2, ensure_ascii=False))
    else:
        where = f" [{report.error.code}, trace {report.trace_id}]"
        click.echo(f"error: {report.error.message}{where}", err=True)
    if report.use.calls and not as_json:
        from agentflow_serve.model_use import describe

        click.echo(f"models: {describe(report.use)}", err=True)
    return Exit.OK if report.error is None else Exit.FAILED


def _rules(
    flow: Flow, llmhub: Path | None, budgets: Path | None, policy: Path | None, *, embedder: str | None
) -> dict[str, Any]:
    """The settings that the files make."""
    if budgets is None and policy is None:
        return {}
    from agentflow_serve.inputs import read_budgets, read_llmhub, read_policy

    models = read_llmhub(None if llmhub is None else str(llmhub))
    return {
        "budgets": None if budgets is None else read_budgets(str(budgets), flow, models, embedder),
        "policy": None if policy is None else read_policy(str(policy)),
    }


async def _run(
    flow: Flow, request: Mapping[str, Any], llmhub: Path | None, settings: Any, deadline_s: float | None, *, quiet: bool
) -> RunReport:
    from agentflow_serve.store_needs import why_asked
    from flow_runtime.local import run

    async with AsyncExitStack() as stack:
        hub = None
        if llmhub is not None:
            from llmhub_runtime import LLMHub

            hub = LLMHub(config_path=str(llmhub))
            stack.push_async_callback(hub.aclose)
        if why_asked(flow, settings.policy):
            from agentflow_serve.commands.questions import told

            settings = await stack.enter_async_context(told(settings))
        return await run(
            flow, request, hub=hub, settings=settings, deadline_s=deadline_s, observe=None if quiet else _show
        )


def _show(node: str, status: NodeStatus | None, at_s: float) -> None:
    click.echo(f"{at_s * 1000:8.1f} ms  {MARKS[status]:<9}  {node}", err=True)


def _request(text: str) -> dict[str, Any]:
    import orjson

    content: str | bytes = text
    if text.startswith("@"):
        try:
            content = Path(text[1:]).read_bytes()
        except OSError as exc:
            raise click.BadParameter(f"cannot read {text[1:]}: {exc.strerror}", param_hint="--input") from exc
    try:
        request = orjson.loads(content)
    except ValueError as exc:
        raise click.BadParameter(f"not JSON: {exc}", param_hint="--input") from exc
    if not isinstance(request, dict):
        raise click.BadParameter("the request must be a JSON object", param_hint="--input")
    return request


def _checked(report: RunReport) -> RunReport:
    """The report; failed, as a server has it, where the output is not JSON."""
    from agentflow_serve.json_text import check_value
    from runtime_core.report import RunError

    try:
        check_value(report.output)
    except ValueError as exc:
        error = RunError(code="bad_output", message=f"the flow's output is not JSON: {exc}")
        return replace(report, output=None, error=error)
    return report


def _document(report: RunReport) -> dict[str, Any]:
    return {
        "output": report.output,
        "nodes": {name: asdict(node) for name, node in report.nodes.items()},
        "use": asdict(report.use),
        "trace_id": report.trace_id,
        "error": asdict(report.error) if report.error else None,
    }
