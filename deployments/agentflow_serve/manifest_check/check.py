"""All layers over all documents: schemas, Kubernetes' own kinds, the operators' rules, the serve config, the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agentflow_serve.errors import ServeConfigUnread
from agentflow_serve.manifest_check.core_kinds import can_check, check_core, is_core
from agentflow_serve.manifest_check.folder import Folder
from agentflow_serve.manifest_check.folder_rules import check_together
from agentflow_serve.manifest_check.kserve_rules import check_inference_service
from agentflow_serve.manifest_check.ray_rules import check_ray_service
from agentflow_serve.manifest_check.report import Found, Manifest, Problem, Report, problem
from agentflow_serve.manifest_check.schemas import Schemas
from agentflow_serve.manifest_check.serve_rules import check_serve_config
from agentflow_serve.serve_config import read_serve_config


def check_manifests(path: Path, *, crds: Path | None = None) -> Report:
    """Check a folder of manifests, or one file. `crds` is a folder of CRDs; without it no schema of theirs is known.

    An overlay is looked at where its base is in order: what is wrong there is said once.
    """
    folder = Folder(path)
    custom = {each.kind for each in folder.manifests if not is_core(each)}
    schemas = Schemas(crds, custom) if crds is not None else None
    problems = [*folder.problems, *_each(folder.manifests, schemas), *check_together(folder.manifests)]
    bad = {each.subject for each in problems}
    sound = [each for each in folder.overlaid if f"{each.kind}/{each.name}" not in bad]
    problems += _each(sound, schemas)
    if not folder.manifests and not problems:
        problems.append(Problem(str(path), "", "", "holds no manifests"))
    return Report(len(folder.manifests), tuple(problems), tuple(_skipped(folder, schemas, crds)))


def _each(manifests: list[Manifest], schemas: Schemas | None) -> Iterator[Problem]:
    for manifest in manifests:
        for path, message in _layers(manifest, schemas):
            yield problem(manifest, path, message)


def _layers(manifest: Manifest, schemas: Schemas | None) -> Found:
    if is_core(manifest) and can_check():
        yield from check_core(manifest)
    elif schemas is not None and schemas.has(manifest.api, manifest.kind):
        yield from schemas.check(manifest.data)
    if manifest.kind == "RayService":
        yield from _ray_service(manifest)
    elif manifest.kind == "InferenceService":
        yield from check_inference_service(manifest)


def _ray_service(manifest: Manifest) -> Found:
    inside = "spec.serveConfigV2"
    try:
        config = read_serve_config(manifest.spec.get("serveConfigV2"))
    except ServeConfigUnread as exc:
        yield inside, str(exc)
        yield from check_ray_service(manifest, None)
        return
    yield from check_ray_service(manifest, config)
    for path, message in check_serve_config(config):
        yield ".".join(part for part in (inside, path) if part), message


def _skipped(folder: Folder, schemas: Schemas | None, crds: Path | None) -> Iterator[str]:
    custom = sorted({(each.api, each.kind) for each in folder.manifests if not is_core(each)})
    if schemas is None:
        if custom:
            yield "no CRDs are given (--crds FOLDER): the fields of custom kinds were not held to their schemas"
    else:
        for api, kind in custom:
            if not schemas.has(api, kind):
                yield f"{crds} has no CRD of {api} {kind}: its fields were not checked"
        if schemas.has_rules():
            yield "some schemas have rules in CEL, which only an API server evaluates"
    if not can_check():
        yield "kubernetes-validate is not installed: Kubernetes' own kinds were not checked"
