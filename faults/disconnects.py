"""Clients on raw sockets that leave at any byte of their request or of the answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from agent_runtime import Budget
from faults.doors import PLAIN, STREAM, port_of, serve_until
from faults.report import Report
from faults.rig import Said, ShiftedClock, close_books, crew, open_books, stores
from faults.stall import Stall
from llmhub_runtime.sim import LogEntry, SimProcess, parse_script, read_log_file
from runtime_core.call_log.records import LEASE_LAPSED

SCOPE = "default"
CLOSED_WITHIN_S = 0.5
LONGEST_S = 0.6
LATER_S = 3600.0
STALLED_S = 60.0
"""Without a single client that leaves: then the run falls short."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
WORDS = " ".join(f"word{number}" for number in range(40))


@dataclass(frozen=True, slots=True)
class Visits:
    """How many clients leave, and how many are there at a time; provider and clients take `slower` times as long."""

    leave: int
    at_once: int
    slower: float


LONG, SHORT = Visits(2000, 16, 1.0), Visits(60, 6, 3.0)


def run(short: bool) -> Report:
    report = Report("disconnects")
    how = SHORT if short else LONG
    script = parse_script(
        {
            "rules": [
                {"match": {"contains": "streamed"}, "reply": {"answer": WORDS, "ms_per_token": 10 * how.slower}},
                {"match": {"contains": "quick"}, "reply": {"answer": WORDS, "latency_ms": 40}},
                {"reply": {"answer": WORDS, "latency_ms": 700 * how.slower}},
            ]
        }
    )
    with tempfile.TemporaryDirectory(prefix="af-") as name, stores(Path(name)) as databases:
        folder = Path(name)
        url, said, log, stop = databases.fresh("sqlite"), Said(folder / "said"), folder / "sim.log", folder / "stop"
        open_books(url, Budget(scope_id=SCOPE, max_tokens_total=10**12))
        with SimProcess(script=script, log_path=log) as sim, crew() as them:
            them.fork(serve_until(stop.exists, url, sim.openai_base, said))
            port, stall = port_of(said), Stall(STALLED_S)
            left = asyncio.run(visit(lambda number: _client(port, number, how), how, stall))
            stop.touch()
            report.expect("the server ends well", them.wait() == [0])
        requests = read_log_file(log)
        [lag_s] = [one["lag_s"] for one in said.all() if one["said"] == "lag"]
        books = close_books(url, requests, clock=ShiftedClock(LATER_S), scope_id=SCOPE)
    report.check(books, "I1", "I2", "I4")
    lapsed = [row for row in books.rows if row.ending is not None and row.ending.error == LEASE_LAPSED]
    report.expect("every attempt was ended by whoever made it, none by its lease", not lapsed, len(lapsed))
    ends = Counter(how for how, _ in left.values())
    report.reach("clients left", sum(at is not None for _, at in left.values()), how.leave)
    report.say(f"{len(left):,} clients: {', '.join(f'{count:,} {how}' for how, count in ends.most_common())}")
    report.say(books.summary())
    _judge_delays(books.requests, left, report, lag_s=lag_s)
    return report.end()


End = tuple[str, float | None]
"""How a client ended, and when it left, in seconds since the epoch; None for one that stayed."""
Left = Mapping[int, End]
"""The ends of all clients by their numbers."""


def _judge_delays(requests: Sequence[LogEntry], left: Left, report: Report, *, lag_s: float) -> None:
    """`lag_s` is how late the server's own timers were (p99): so much the machine was busy with something else."""
    delays: list[float] = []
    for entry in requests:
        _, left_at = left[_number(entry)]
        ended = entry.time.timestamp() + (entry.duration_ms or 0) / 1000
        if left_at is not None and ended > left_at:
            delays.append(ended - left_at)
    delays.sort()
    p50, p99 = (delays[int(share * (len(delays) - 1))] if delays else 0.0 for share in (0.5, 0.99))
    report.say(
        f"{len(delays):,} requests were open at the provider when their client left: "
        f"closed after {p50 * 1000:.0f} ms (p50), {p99 * 1000:.0f} ms (p99), as the provider saw it; "
        f"timers of the server were {lag_s * 1000:.0f} ms late (p99)"
    )
    what = f"the provider's side is closed within {CLOSED_WITHIN_S:g} s of the leaving (p99, and what timers are late)"
    report.expect(what, p99 <= CLOSED_WITHIN_S + 3 * lag_s, p99)
    report.expect("some clients left while the provider worked", delays)


def _number(entry: LogEntry) -> int:
    match entry.request:
        case {"messages": [*_, {"content": str(text)}]}:
            return int(text.split("client ")[1].split()[0])
        case _:
            raise ValueError(f"request {entry.seq} is of no client")


async def visit(client: Callable[[int], Awaitable[End]], how: Visits, stall: Stall) -> Left:
    """Client after client, until enough of them have left or, for too long, none has."""
    ends, left, numbers = dict[int, End](), 0, count()

    async def one_by_one() -> None:
        nonlocal left
        while left < how.leave and not stall.at(left):
            number = next(numbers)
            end = await client(number)
            ends[number], left = end, left + (end[1] is not None)

    await asyncio.gather(*(one_by_one() for _ in range(how.at_once)))
    return ends


async def _client(port: int, number: int, how: Visits) -> End:
    choose, longest_s = Random(number), how.slower * LONGEST_S
    streamed = choose.random() < 0.5
    kind = "streamed" if streamed else choose.choice(["quick", "plain"])
    request = _request(kind, number)
    whole = choose.random() > 0.25
    data = request if whole else request[: choose.randrange(len(request))]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    wanted = choose.randrange(450 if streamed else 700)
    stays = whole and choose.random() < 0.05
    answered = await _read(reader, 10**6 if stays else wanted, 60 if stays else choose.uniform(0, longest_s), whole)
    if choose.random() < 0.5:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    left_at = time.time()
    writer.transport.abort()
    if not whole:
        return "left inside the request", left_at
    if answered is None:
        return "had the whole answer", None
    return "left inside the answer" if answered else "left before the answer", left_at


async def _read(reader: asyncio.StreamReader, size: int, within_s: float, whole: bool) -> int | None:
    """How many bytes came, at most `size`; None for all there were."""
    got = 0
    try:
        async with asyncio.timeout(within_s if whole else 0.01):
            while got < size:
                part = await reader.read(size - got)
                if not part:
                    return None
                got += len(part)
    except TimeoutError:
        pass
    return got


def _request(kind: str, number: int) -> bytes:
    text = f"A {kind} answer for client {number} , please."
    path, body = (STREAM, {"x": text}) if kind == "streamed" else (PLAIN, {"instances": [{"x": text}]})
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: door\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
