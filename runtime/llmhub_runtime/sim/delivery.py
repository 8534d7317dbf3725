"""Carrying out a plan on a channel, and keeping account of what was really sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from llmhub_runtime.sim.channel import Channel, ClientGone
from llmhub_runtime.sim.payload import Frame
from llmhub_runtime.sim.plan import Plan
from llmhub_runtime.sim.tokens import tokens_of_bytes

Outcome = Literal["open", "finished", "cut", "aborted", "client_disconnected", "server_stopped", "failed"]

_DRIP_S = 0.05
_ENDED: dict[str, Outcome] = {"complete": "finished", "cut": "cut", "abort": "aborted", "reset": "aborted"}


@dataclass(slots=True)
class Progress:
    """What has left the server so far."""

    status: int | None = None
    text_bytes: int = 0
    told_usage: bool = False
    outcome: Outcome = "open"

    @property
    def tokens_sent(self) -> int:
        return tokens_of_bytes(self.text_bytes)


async def deliver(plan: Plan, channel: Channel, progress: Progress, headers: tuple[tuple[str, str], ...]) -> None:
    """Send the answer as planned. A client that leaves ends it early; the progress says so."""
    try:
        await _deliver(plan, channel, progress, headers)
    except ClientGone:
        progress.outcome = "client_disconnected"


async def _deliver(plan: Plan, channel: Channel, progress: Progress, headers: tuple[tuple[str, str], ...]) -> None:
    waits = plan.delay_s + (0.0 if plan.payload.streamed else plan.pace_s)
    if waits > 0:
        await channel.pause(waits)
    if plan.ending == "reset":
        await channel.hang_up(reset=True)
    elif plan.ending == "hang" and not plan.payload.frames:
        await channel.until_gone()
    else:
        await channel.start(plan.status, (*headers, *plan.headers, *_length(plan)))
        progress.status = plan.status
        await (_stream if plan.payload.streamed else _send_whole)(plan, channel, progress)
        await _end(plan, channel)
    progress.outcome = _ENDED[plan.ending]


def _length(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The body's length, unless its end is not known from the start."""
    payload = plan.payload
    frames = (*payload.frames, *payload.tail)
    length = sum(len(frame.data) for frame in frames)
    known = not payload.streamed and plan.ending in ("complete", "cut")
    return (("content-type", payload.content_type), *((("content-length", str(length)),) if known else ()))


async def _send_whole(plan: Plan, channel: Channel, progress: Progress) -> None:
    for frame in (*plan.payload.frames, *plan.payload.tail):
        await _write(frame, plan, channel, progress)
    progress.told_usage = plan.payload.tells_usage


async def _stream(plan: Plan, channel: Channel, progress: Progress) -> None:
    loop = asyncio.get_running_loop()
    start, done = loop.time(), 0
    size = sum(frame.text_bytes for frame in plan.payload.frames)
    for frame in plan.payload.frames:
        done += frame.text_bytes
        due = start + plan.pace_s * (done / size) if size else start
        await channel.pause(max(0.0, due - loop.time()))
        await _write(frame, plan, channel, progress)
    for frame in plan.payload.tail:
        await channel.pause(0)
        await _write(frame, plan, channel, progress)
    progress.told_usage = plan.payload.tells_usage


async def _write(frame: Frame, plan: Plan, channel: Channel, progress: Progress) -> None:
    rate = plan.bytes_per_second
    if rate is None:
        await channel.write(frame.data)
    else:
        step = max(1, int(rate * _DRIP_S))
        for at in range(0, len(frame.data), step):
            await channel.pause(step / rate)
            await channel.write(frame.data[at : at + step])
    progress.text_bytes += frame.text_bytes


async def _end(plan: Plan, channel: Channel) -> None:
    match plan.ending:
        case "abort":
            await channel.hang_up(reset=False)
        case "hang":
            await channel.until_gone()
        case _:
            await channel.write(b"", more=False)
