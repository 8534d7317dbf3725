"""This package as a wheel, made of what is imported: an image needs no index to get it from."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from agentflow_serve.container.lock import LOCK, installed_lock
from agentflow_serve.errors import PackageInvalid

DISTRIBUTION = "agentflow-serve"
PACKAGES = (
    "agentflow",
    "runtime_core",
    "llmhub_runtime",
    "llm_client",
    "mellea_runtime",
    "agent_runtime",
    "flow_runtime",
    "agentflow_serve",
)
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold, so that equal files make equal wheels


def own_wheel() -> tuple[str, bytes]:
    """The name of the wheel and its bytes, the same for the same files."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as exc:
        raise PackageInvalid("agentflow-serve is not installed as a package here: pip install it first") from exc
    stem = f"agentflow_serve-{distribution.version}"
    files = dict(_sources())
    files[f"agentflow_serve/{LOCK}"] = installed_lock().read_bytes()
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    files[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: agentflow\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_hash(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"{stem}-py3-none-any.whl", _zip(files)


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise PackageInvalid(f"the package {package} is not there: install agentflow-serve again")
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(root.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and file.name != LOCK:
                yield f"{package}/{file.relative_to(root).as_posix()}", file.read_bytes()


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
