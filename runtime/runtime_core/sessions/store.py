"""Sessions on a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime_core.clock import Clock, SteadyTime
from runtime_core.errors import StoreValueError
from runtime_core.ids import check_scope_id
from runtime_core.sessions import branches, catalog, ops
from runtime_core.sessions.catalog import SessionCursor, SessionInfo, SessionPage
from runtime_core.sessions.ops import SessionLimits, Write
from runtime_core.sessions.protocol import SessionRead
from runtime_core.sessions.records import SessionRecord
from runtime_core.sessions.schema import MIGRATIONS, SessionKey, from_store, to_store
from runtime_core.stores.database import Database
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.migrations import migrate
from runtime_core.stores.scope import everywhere, in_scope

NO_LIMITS_SAID = SessionLimits()
SWEEP_EVERY = 64
SWEEP_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Following:
    """What a reader who knew a session up to a record gets: what `follows` that one, or all of the session."""

    version: int
    records: tuple[SessionRecord, ...]
    follows: bool


class StoredSessions:
    """A SessionStore on a database that the caller opens and closes. A session expires `ttl_s` after its last write.

    Every method may be repeated after StoreUnavailableError, also with `outcome_unknown`: record ids make an append
    and a merge that are repeated harmless. Every method raises IdentityError for ids that are not canonical.
    """

    def __init__(
        self, database: Database, *, clock: Clock, ttl_s: float | None = None, limits: SessionLimits = NO_LIMITS_SAID
    ) -> None:
        self._database = database
        self._time = SteadyTime(clock)
        self._ttl_s = ttl_s
        self._limits = limits
        self._writes = 0

    async def prepare(self) -> None:
        """Create or upgrade the tables; call it once per process."""
        await migrate(self._database, "sessions", MIGRATIONS)

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead:
        """What was appended after version `since`; 0 is all.

        A version below `since` says that the session was deleted, or has expired, after that version was read.
        """
        key, now = SessionKey(scope_id, session_id), self._time.now()
        found = await self._database.read(in_scope(scope_id, lambda: ops.read(key, now, since=since)))
        return SessionRead(found.version, tuple(map(from_store, found.contents)))

    async def follow(self, key: SessionKey, *, version: int, last: str) -> Following:
        """What stands behind the record `last`, with which the session had `version`."""
        now = self._time.now()
        found = await self._database.read(in_scope(key.scope_id, lambda: ops.read(key, now, since=version, last=last)))
        return Following(found.version, tuple(map(from_store, found.contents)), found.follows)

    async def append(self, *, scope_id: str, session_id: str, records: Sequence[SessionRecord], base: int) -> int:
        """Add the records as a whole behind what others have added since version `base`; the version they lead to.

        Records that the session has are not added again, and keep their places: repeated, an append gives the same
        version. Raises StoreFullError for a session that would outgrow its limits; nothing is added then.
        """
        if base < 0:
            raise StoreValueError(f"A session's versions begin with 0, so nothing can be based on version {base}.")
        key, rows = SessionKey(scope_id, session_id), [to_store(record) for record in records]
        write = await self._write()
        failpoint("sessions.before_append")
        version = await self._database.run(in_scope(scope_id, lambda: ops.append(key, rows, write)))
        failpoint("sessions.after_append")
        return version

    async def fork(self, *, scope_id: str, session_id: str, into: str, at: int | None = None) -> int:
        """Begin the session `into` with this one's records up to version `at`, or all of them; its version.

        Raises StoreConflictError where `into` is another session, StoreValueError for a version that is not there.
        """
        source, target = SessionKey(scope_id, session_id), SessionKey(scope_id, into)
        write = await self._write()
        return await self._database.run(in_scope(scope_id, lambda: branches.fork(source, target, at, write)))

    async def merge(self, *, scope_id: str, session_id: str, sources: Sequence[str]) -> int:
        """Add to a session what it lacks of each source's records, in the order of the sources; its version then.

        Raises StoreFullError; nothing is merged then.
        """
        key, others = SessionKey(scope_id, session_id), [SessionKey(scope_id, source) for source in sources]
        write = await self._write()
        return await self._database.run(in_scope(scope_id, lambda: branches.merge(key, others, write)))

    async def info(self, *, scope_id: str, session_id: str) -> SessionInfo | None:
        """The session without its records; None if it is not there."""
        key, now = SessionKey(scope_id, session_id), self._time.now()
        return await self._database.read(in_scope(scope_id, lambda: catalog.info(key, now)))

    async def list(self, *, scope_id: str, after: SessionCursor | None = None, limit: int = 100) -> SessionPage:
        """A page of the scope's sessions, the one that was written to last first."""
        check_scope_id(scope_id)
        now = self._time.now()
        return await self._database.read(
            in_scope(scope_id, lambda: catalog.sessions(scope_id, now, after=after, limit=limit))
        )

    async def delete(self, *, scope_id: str, session_id: str) -> bool:
        """Forget a session; False if there was nothing to forget. A run that is going on may begin it anew."""
        key = SessionKey(scope_id, session_id)
        return await self._database.run(in_scope(scope_id, lambda: ops.delete(key)))

    async def expire(self, *, limit: int = 1000) -> int:
        """Free the space of up to `limit` expired sessions of all scopes; nobody sees them in any case."""
        now = self._time.now()
        return await self._database.run(everywhere(lambda: ops.expire(now, limit)))

    async def _write(self) -> Write:
        """The terms of the next write. Now and then it frees expired sessions, as fast as new ones can come."""
        self._writes += 1
        if self._writes % SWEEP_EVERY == 0:
            await self.expire(limit=SWEEP_LIMIT)
        return Write(self._time.now(), self._ttl_s, self._limits)
