"""Keys that are mounted as files reach those who look for variables, and nothing else in the folder does."""

from __future__ import annotations

from pathlib import Path

from agentflow_serve.key_files import KEYS_DIR, export_keys


def test_every_file_becomes_the_variable_of_its_name_unless_that_is_set(tmp_path: Path):
    (tmp_path / "..2026_01_01").mkdir()  # how Kubernetes mounts a Secret: links into a folder that it can exchange
    for name, text in {"OPENAI_API_KEY": "from the file\n", "SET": "from the file", "not a name": "x"}.items():
        (tmp_path / "..2026_01_01" / name).write_text(text)
        (tmp_path / name).symlink_to(tmp_path / "..2026_01_01" / name)
    environ = {KEYS_DIR: str(tmp_path), "SET": "before"}
    export_keys(environ)
    assert environ == {KEYS_DIR: str(tmp_path), "SET": "before", "OPENAI_API_KEY": "from the file"}


def test_without_a_folder_nothing_changes(tmp_path: Path):
    for environ in ({}, {KEYS_DIR: str(tmp_path / "nowhere")}):
        before = dict(environ)
        export_keys(environ)
        assert environ == before
