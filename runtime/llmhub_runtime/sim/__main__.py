"""`python -m llmhub_runtime.sim`: serve the simulated model until it is told to stop.

Prints one line with its address when it listens. Ends on SIGINT, SIGTERM, or, with --exit-with-stdin, when
its stdin closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from llmhub_runtime.sim.errors import SimError
from llmhub_runtime.sim.process import FAILED, READY
from llmhub_runtime.sim.script import load_script
from llmhub_runtime.sim.server import SimServer


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after an orderly stop, 1 when it could not start."""
    options = _parser().parse_args(arguments)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options))
    except SimError as exc:
        _say(f"{FAILED}{exc}")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmhub_runtime.sim",
        description="A simulated model that speaks the OpenAI and the Ollama API; not a language model.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=11555, help="port; 0 picks a free one (default: %(default)s)")
    parser.add_argument("--script", metavar="FILE", help="YAML or JSON file with the rules to answer by")
    parser.add_argument("--log", metavar="FILE", help="append every request to this file, as JSON lines")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when stdin closes")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    script = load_script(options.script) if options.script else None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with SimServer(host=options.host, port=options.port, script=script, log_path=options.log) as server:
        _say(f"{READY}{server.base_url}")
        if options.exit_with_stdin:
            _watch_stdin(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()


def _watch_stdin(closed: Callable[[], object]) -> None:
    """Call `closed` when stdin ends. A thread, because not every stdin can be polled."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        # The loop may be gone already, when a signal came first.
        with contextlib.suppress(RuntimeError):
            closed()

    threading.Thread(target=watch, name="agentflow-sim-stdin", daemon=True).start()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
