"""Actions in Redis alone, for questions that may be lost: they are as durable as that server is made to be.

A Redis that restarts empty has forgotten every open action, and the last second of writes is gone with the usual
`appendfsync everysec`. Where an answer must not be lost, use a store on PostgreSQL or SQLite. One server or one
primary, no cluster: an action and its indexes change together, in one script.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from agent_runtime.actions.machine import ActionEvent, transition
from agent_runtime.actions.records import ActionRecord
from agent_runtime.actions.store import ActionCursor, ActionFilter
from agent_runtime.errors import ActionConflictError, ActionNotFoundError
from agent_runtime.redis.scripts import Script
from agent_runtime.scopes import place, scope_of
from runtime_core.errors import StoreError, StoreFullError, StoreUnavailableError
from runtime_core.ids import check_scope_id

DEFAULT_PREFIX = "agentflow:actions"
PAGE = 200

_COLLISIONS = 100

Command: TypeAlias = tuple[str, ...]


class _Kept(BaseModel):
    """What stands under an action's key: its token opens it by another key that holds the action's id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_hash: str
    action: ActionRecord


@dataclass(slots=True)
class _Sent:
    """Whether a change is on its way, so that its fate is unknown when the connection is lost."""

    change: bool = False


class RedisActionStore:
    """An ActionStore. The client stays its owner's to close; each call takes `timeout_s` at most."""

    def __init__(self, client: Redis, *, prefix: str = DEFAULT_PREFIX, timeout_s: float = 5.0) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._prefix = prefix
        self._script = Script("change_if_same")
        self._due, self._untold = f"{prefix}:due", f"{prefix}:untold"

    async def create(self, action: ActionRecord, *, token_hash: str) -> ActionRecord:
        def keep(there: _Kept | None) -> _Kept:
            if there is None:
                return _Kept(token_hash=token_hash, action=action)
            first = there.action
            if (first.type, first.job_id, first.payload) != (action.type, action.job_id, action.payload):
                raise ActionConflictError(
                    f"Action {action.action_id!a} asks for something else already; use a new id.",
                    action_id=action.action_id,
                    status=first.status.value,
                )
            return there if first.is_settled else _Kept(token_hash=token_hash, action=first)

        return (await self._change(action.scope_id, action.action_id, keep)).action

    async def get(self, scope_id: str, action_id: str) -> ActionRecord | None:
        key = self._key(scope_id, action_id)
        async with self._asking():
            [kept] = await self._fetch([key])
        return kept and kept.action

    async def find(self, scope_id: str, *, token_hash: str) -> ActionRecord | None:
        token = self._token(scope_id, token_hash)
        async with self._asking():
            action_id = await self._client.get(token)
            if action_id is None:
                return None
            [kept] = await self._fetch([self._key(scope_id, _text(action_id))])
        return kept.action if kept is not None and kept.token_hash == token_hash else None

    async def apply(self, scope_id: str, action_id: str, event: ActionEvent, *, now: datetime) -> ActionRecord:
        def move(there: _Kept | None) -> _Kept:
            if there is None:
                raise ActionNotFoundError(f"There is no action {action_id!a} in this scope.", action_id=action_id)
            after = transition(there.action, event, now)
            return there if after is there.action else there.model_copy(update={"action": after})

        return (await self._change(scope_id, action_id, move)).action

    async def list(
        self,
        scope_id: str,
        which: ActionFilter | None = None,
        *,
        after: ActionCursor | None = None,
        limit: int = 100,
    ) -> list[ActionRecord]:
        found: list[ActionRecord] = []
        index = self._of_scope("time", scope_id)
        newest = "+inf" if after is None else repr(after.created_at)
        start = 0
        async with self._asking():
            while len(found) < limit:
                ids = await self._client.zrevrangebyscore(index, newest, "-inf", start=start, num=PAGE)
                kept = await self._fetch(self._key(scope_id, _text(each)) for each in ids)
                found += [each.action for each in kept if each is not None and _fits(each.action, which, after)]
                if len(ids) < PAGE:
                    break
                start += PAGE
        return found[:limit]

    async def due(self, *, now: datetime, limit: int) -> list[ActionRecord]:
        async with self._asking():
            places = await self._client.zrangebyscore(self._due, "-inf", now.timestamp(), start=0, num=limit)
            return await self._at(places)

    async def untold(self, *, limit: int) -> list[ActionRecord]:
        async with self._asking():
            return await self._at(await self._client.zrange(self._untold, 0, limit - 1))

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int = 1000) -> int:
        settled = self._of_scope("settled", scope_id)
        sent = _Sent()
        forgotten = 0
        async with self._asking(sent):
            until = f"({older_than.timestamp()!r}"
            for each in await self._client.zrangebyscore(settled, "-inf", until, start=0, num=limit):
                action_id = _text(each)
                before = await self._client.get(self._key(scope_id, action_id))
                sent.change = True
                forgotten += await self._commit(
                    scope_id, action_id, before, self._deletion(scope_id, action_id, before)
                )
        return forgotten

    async def _change(self, scope_id: str, action_id: str, change: Callable[[_Kept | None], _Kept]) -> _Kept:
        """What `change` makes of the action, if nobody else changed it meanwhile; else the same again."""
        sent = _Sent()
        async with self._asking(sent):
            for _ in range(_COLLISIONS):
                text = await self._client.get(self._key(scope_id, action_id))
                before = _kept(text)
                after = change(before)
                if after is before:
                    return after
                sent.change = True
                if await self._commit(scope_id, action_id, text, self._writing(before, after)):
                    return after
        raise StoreUnavailableError(f"Action {action_id!a} is being changed by too many at once; try again.")

    async def _commit(
        self, scope_id: str, action_id: str, before: bytes | str | None, commands: Sequence[Command]
    ) -> bool:
        there = "" if before is None else _text(before)
        return bool(await self._script.run(self._client, self._key(scope_id, action_id), there, json.dumps(commands)))

    def _writing(self, before: _Kept | None, after: _Kept) -> list[Command]:
        action = after.action
        scope_id, action_id, here = action.scope_id, action.action_id, place(action.scope_id, action.action_id)
        is_due = action.expires_at is not None and not action.is_settled
        is_untold = action.resolved_at is not None and action.job_id is not None and not action.job_told
        commands: list[Command] = [
            ("SET", self._key(scope_id, action_id), after.model_dump_json()),
            ("SET", self._token(scope_id, after.token_hash), action_id),
            ("ZADD", self._of_scope("time", scope_id), _score(action.created_at), action_id),
            ("ZADD", self._due, _score(action.expires_at), here) if is_due else ("ZREM", self._due, here),
            ("ZADD", self._untold, _score(action.resolved_at), here) if is_untold else ("ZREM", self._untold, here),
        ]
        if before is not None and before.token_hash != after.token_hash:
            commands.append(("DEL", self._token(scope_id, before.token_hash)))
        if action.resolved_at is not None and not is_untold:  # what a job is not told yet is not forgotten
            commands.append(("ZADD", self._of_scope("settled", scope_id), _score(action.resolved_at), action_id))
        return commands

    def _deletion(self, scope_id: str, action_id: str, before: bytes | str | None) -> list[Command]:
        here, kept = place(scope_id, action_id), _kept(before)
        commands: list[Command] = [
            ("DEL", self._key(scope_id, action_id)),
            ("ZREM", self._due, here),
            ("ZREM", self._untold, here),
            ("ZREM", self._of_scope("time", scope_id), action_id),
            ("ZREM", self._of_scope("settled", scope_id), action_id),
        ]
        if kept is not None:
            commands.append(("DEL", self._token(scope_id, kept.token_hash)))
        return commands

    async def _at(self, places: Iterable[bytes | str]) -> list[ActionRecord]:
        kept = await self._fetch(self._key(*scope_of(_text(each))) for each in places)
        return [each.action for each in kept if each is not None]

    async def _fetch(self, keys: Iterable[str]) -> list[_Kept | None]:
        wanted = list(keys)
        return [_kept(each) for each in await self._client.mget(wanted)] if wanted else []

    @asynccontextmanager
    async def _asking(self, sent: _Sent | None = None) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except ResponseError as error:
            if "OOM" in str(error):
                raise StoreFullError("Redis has no memory left: give it more. Nothing was written.") from error
            raise StoreError(f"Redis refused a command: {error}.") from error
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(
                f"Redis does not answer ({type(error).__name__}); see whether it runs.",
                outcome_unknown=sent is not None and sent.change,
            ) from error

    def _key(self, scope_id: str, action_id: str) -> str:
        return self._of_scope("action", scope_id, action_id)

    def _token(self, scope_id: str, token_hash: str) -> str:
        return self._of_scope("token", scope_id, token_hash)

    def _of_scope(self, kind: str, scope_id: str, name: str = "") -> str:
        return f"{self._prefix}:{kind}:{place(check_scope_id(scope_id), name)}"


def _kept(text: Any) -> _Kept | None:
    return None if text is None else _Kept.model_validate_json(text)


def _score(moment: datetime | None) -> str:
    assert moment is not None, "only times that are there are kept"
    return repr(moment.timestamp())


def _fits(action: ActionRecord, which: ActionFilter | None, after: ActionCursor | None) -> bool:
    if after is not None and (action.created_at.timestamp(), action.action_id) >= (after.created_at, after.action_id):
        return False
    if which is None:
        return True
    return which.status in (None, action.status) and which.job_id in (None, action.job_id)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
