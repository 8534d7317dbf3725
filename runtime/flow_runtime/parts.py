"""What the nodes of a process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from flow_runtime.code_mode import CodeMode
from flow_runtime.dispatch import Dispatcher, LocalDispatch
from flow_runtime.models import Models
from flow_runtime.operations import OperationResources, OperationSettings
from flow_runtime.outcome_cache import OutcomeCache
from flow_runtime.state import StateBackends
from flow_runtime.tool_policy import AdmitAllTools, ToolPolicy
from runtime_core.clock import Clock
from runtime_core.ids import IdSource, RandomIds


@dataclass(frozen=True, slots=True)
class NodeParts:
    """Whoever made the parts closes them. `models` is None where no prompt may run.

    `draw` gives numbers from 0 up to 1; the jitter of the pauses between attempts is made of them. `tools` leads to
    the nodes that prompts call as tools, and `tool_policy` may refuse each call of a tool.
    """

    clock: Clock
    models: Models | None
    state: StateBackends
    operation_settings: OperationSettings
    operation_resources: OperationResources
    code: CodeMode = "inline"
    draw: Callable[[], float] = field(default_factory=lambda: Random().random)
    cache: OutcomeCache = field(default_factory=OutcomeCache)
    ids: IdSource = field(default_factory=RandomIds)
    tools: Dispatcher = field(default_factory=lambda: LocalDispatch({}))
    tool_policy: ToolPolicy = field(default_factory=AdmitAllTools)
