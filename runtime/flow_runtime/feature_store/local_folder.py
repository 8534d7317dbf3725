"""The folder of a local feature store: where groups, views and parts are, and how a part is added.

    <folder>/<group>_v<version>/group.yaml
    <folder>/<group>_v<version>/*.parquet       parts, each whole and never changed; the last name counts most
    <folder>/views/<view>_v<version>.yaml

No link is followed below the folder, and names have passed `names.named`, so that nothing outside it is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from flow_runtime.errors import FeatureStoreInvalid, OperationFailed
from flow_runtime.feature_store.local_schema import GroupSchema, ViewSchema
from flow_runtime.feature_store.names import Named

LARGEST_YAML = 256 * 1024
_GLOB = "*?["

Model = TypeVar("Model", bound=BaseModel)


class StoreFolder:
    """Raises FeatureStoreInvalid for a folder that is not there."""

    def __init__(self, folder: str) -> None:
        try:
            self.root = Path(folder).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as exc:
            message = f"there is no folder {folder!r} for the feature store (looked from {Path.cwd()})"
            raise FeatureStoreInvalid(message) from exc
        if not self.root.is_dir():
            raise FeatureStoreInvalid(f"the feature store {folder!r} is not a folder")
        if any(char in _GLOB for char in str(self.root)):
            raise FeatureStoreInvalid(
                f"the feature store's path {str(self.root)!r} holds one of the characters {_GLOB}"
            )

    def group(self, group: Named) -> GroupSchema:
        """The schema of a group. Raises OperationFailed."""
        if not _is_plain(self.root / str(group), stat.S_ISDIR):
            raise OperationFailed(f"the feature store has no group '{group}'")
        return _read_yaml(self.root / str(group) / "group.yaml", GroupSchema, f"the group '{group}'")

    def view(self, view: Named) -> ViewSchema:
        """What a view selects. Raises OperationFailed."""
        file = self.root / "views" / f"{view}.yaml"
        if not _is_plain(file.parent, stat.S_ISDIR) or not _is_plain(file, stat.S_ISREG):
            raise OperationFailed(f"the feature store has no view '{view}'")
        return _read_yaml(file, ViewSchema, f"the view '{view}'")

    def parts(self, group: Named) -> list[str]:
        """The files with a group's rows, the oldest first."""
        try:
            with os.scandir(self.root / str(group)) as entries:
                names = [entry.name for entry in entries if _is_part(entry)]
        except OSError as exc:
            raise OperationFailed(f"the group '{group}' cannot be listed: {exc.strerror}") from exc
        return [str(self.root / str(group) / name) for name in sorted(names)]

    def add_part(self, group: Named, name: str, write: Callable[[str], None]) -> None:
        """Add a part under a name that nobody has; `write` makes the file at a path. Readers see all of it or nothing.

        Raises OperationFailed when it is not on the disk.
        """
        folder = self.root / str(group)
        temporary = folder / f".{name}.tmp"
        try:
            write(str(temporary))
            _sync(temporary)
            temporary.rename(folder / f"{name}.parquet")
            _sync(folder)
        except OSError as exc:
            raise OperationFailed(f"the group '{group}' cannot be written: {exc.strerror or exc}") from exc
        finally:
            with suppress(OSError):
                temporary.unlink()


def _is_part(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".parquet") and not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)


def _is_plain(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether that is there itself, not by way of a link."""
    try:
        return kind(path.lstat().st_mode)
    except OSError:
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_yaml(path: Path, model: type[Model], what: str) -> Model:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(LARGEST_YAML + 1)
    except OSError as exc:
        raise OperationFailed(f"{what} cannot be read: {path.name}: {exc.strerror}") from exc
    if len(content) > LARGEST_YAML:
        raise OperationFailed(f"{what} cannot be read: {path.name} has more than {LARGEST_YAML} bytes")
    try:
        return model.model_validate(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise OperationFailed(f"{what} cannot be read: {path.name} is not YAML") from exc
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in exc.errors())
        raise OperationFailed(f"{what} cannot be read: {path.name} is wrong: {problems}") from exc
