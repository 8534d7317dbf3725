"""What stands around every tool call, outermost first: telemetry, logging, budget, retry, timeout.

So each attempt has a timeout of its own, a call is charged once however often it is tried, and what is refused is
still seen. A tool call that names no tool, or whose arguments do not fit, never comes here.
"""

from .budget import Budget, MaxToolCalls, ToolBudget
from .chain import Middleware, Next, ToolInvocation, chained
from .default import default_middleware
from .log import Logging
from .retry import Retry
from .telemetry import Telemetry, ToolEventSink
from .timeout import Timeout

__all__ = [
    "Budget",
    "Logging",
    "MaxToolCalls",
    "Middleware",
    "Next",
    "Retry",
    "Telemetry",
    "Timeout",
    "ToolBudget",
    "ToolEventSink",
    "ToolInvocation",
    "chained",
    "default_middleware",
]
