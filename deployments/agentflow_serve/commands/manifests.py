"""`agentflow manifests`: a flow as Kubernetes manifests, and whether a folder of manifests will be accepted."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.options import (
    auth_option,
    budgets_option,
    embedder_option,
    feature_store_option,
    open_option,
    policy_option,
)
from agentflow_serve.commands.paths import DOCUMENT

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("manifests")
@click.argument("flow", required=False, type=DOCUMENT)
@click.option("-o", "--output", type=FOLDER, help="The folder to make, or to renew.")
@click.option("--check", type=click.Path(path_type=Path, exists=True), help="Check manifests, a folder or a file.")
@click.option(
    "--crds", type=click.Path(path_type=Path, exists=True), help="With --check: a folder of CRDs to hold them to."
)
@click.option("--llmhub", type=DOCUMENT, help="The models of the roles.")
@click.option("--name", help="The name of the RayService. [default: the flow's service_name, or its name]")
@click.option("--namespace", help="[default: the flow's namespace, or 'default']")
@click.option("--image", help="The image that `agentflow package` was built to; best with @sha256:...")
@click.option("--store", help="The run store of all pods, such as postgresql://user@host/database.")
@click.option("--redis", help="HOST:PORT of the Redis that keeps Ray's metadata when the head restarts.")
@click.option("--placement", type=click.Choice(["per_node", "inline"]), help="Overrule the flow's own placement.")
@click.option(
    "--code", type=click.Choice(["inline", "modules", "off"]), help="Which code of flows may run. [default: inline]"
)
@auth_option
@open_option
@feature_store_option
@embedder_option
@budgets_option
@policy_option
@click.option("--allow-host", "allow_hosts", multiple=True, help="A private or plain http host that the flow may call.")
@click.option("--egress", multiple=True, help="A further host, or host:port, that pods may call.")
@click.option("--config-map", is_flag=True, help="Put the flow into a ConfigMap instead of the serve config.")
@click.option("--operator-namespace", default="kuberay-operator", show_default=True, help="Where KubeRay runs.")
@click.option("--prometheus-namespace", default="monitoring", show_default=True, help="Where Prometheus runs.")
@click.option("--gateway-namespace", default="gateway-system", show_default=True, help="Where the Gateway runs.")
@click.option("--hostname", help="The host name of the HTTPRoute.")
@click.option(
    "--inference-service",
    type=click.Choice(["standard", "keda", "knative"]),
    help="Add a KServe InferenceService in front, which scales in this mode.",
)
@click.option("--worker-cpus", type=click.IntRange(1, 256), help="[default: what the flow says, or 2]")
@click.option("--worker-memory", help="Such as 4Gi. [default: what the flow says, or 4Gi]")
@click.option("--max-workers", type=click.IntRange(min=1), help="[default: what all replicas need at most]")
def command(
    flow: Path | None, output: Path | None, check: Path | None, crds: Path | None, llmhub: Path | None, **settings: Any
) -> int:
    """Write the manifests of FLOW for KubeRay and KServe into a folder, or check a folder of manifests.

    What is there is replaced as a whole if it was generated for the same flow and nobody has changed it.
    """
    if check is not None:
        if flow is not None or output is not None:
            raise click.UsageError("--check looks at what is there: leave out FLOW and --output")
        return _check(check, crds)
    if flow is None or output is None or crds is not None:
        raise click.UsageError("give FLOW and --output, or --check" if crds is None else "--crds goes with --check")
    return _write(flow, output, llmhub, settings)


def _write(flow: Path, output: Path, llmhub: Path | None, given: dict[str, Any]) -> int:
    from agentflow_serve.generated import write_generated
    from agentflow_serve.manifests.bundle import bundle
    from agentflow_serve.manifests.settings import parse_settings
    from agentflow_serve.manifests.subject import subject_of

    settings = parse_settings({**given, "ray_version": version("ray")})
    subject = subject_of(flow, llmhub, settings)
    files = bundle(subject, settings)
    write_generated(output, files, kind="manifests", flow=subject.flow)
    for warning in subject.warnings:
        click.echo(f"note: {warning}", err=True)
    click.echo(f"wrote {len(files)} files to {output}: RayService {subject.namespace}/{subject.name}")
    return Exit.OK


def _check(path: Path, crds: Path | None) -> int:
    from agentflow_serve.manifest_check.check import check_manifests

    report = check_manifests(path, crds=crds)
    for problem in report.problems:
        click.echo(str(problem))
    for skipped in report.skipped:
        click.echo(f"note: {skipped}", err=True)
    number = len(report.problems)
    click.echo(f"{report.documents} documents checked, {number} problem{'' if number == 1 else 's'}")
    return Exit.FAILED if report.problems else Exit.OK
