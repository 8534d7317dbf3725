"""The simulated model: an HTTP server that speaks the OpenAI and the Ollama API and answers by rule.

It makes a flow run without a key and without a network, through the whole path a real provider would take,
and it fails on demand. It is not a language model and says so in every answer.

* Deterministic: an answer depends on the messages, the model's name and the seed; schemas are satisfied.
* Scriptable: `Script` rules choose exact answers, latency, token counts and faults (see `script`).
* Accountable: every request is in the log before it is answered (see `log`).

`SimServer` runs inside an event loop, `SimProcess` in a child process, `create_app` gives the bare ASGI app.
"""

from llmhub_runtime.sim.app import SimApp, create_app
from llmhub_runtime.sim.control import SimControl
from llmhub_runtime.sim.errors import (
    SimBadRequest,
    SimControlError,
    SimError,
    SimScriptError,
    SimStartError,
)
from llmhub_runtime.sim.log import LogEntry, read_log_file
from llmhub_runtime.sim.process import SimProcess
from llmhub_runtime.sim.script import Match, Reply, Rule, Script, load_script, parse_script
from llmhub_runtime.sim.server import SimServer
from llmhub_runtime.sim.tokens import count_tokens

__all__ = [
    "LogEntry",
    "Match",
    "Reply",
    "Rule",
    "Script",
    "SimApp",
    "SimBadRequest",
    "SimControl",
    "SimControlError",
    "SimError",
    "SimProcess",
    "SimScriptError",
    "SimServer",
    "SimStartError",
    "count_tokens",
    "create_app",
    "load_script",
    "parse_script",
    "read_log_file",
]
