"""The catalogue of declarative operations: what each takes and does. The bodies are in `flow_runtime`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class OperationSpecification:
    """One operation. `args` maps each argument to whether it is required.

    `side_effect`: it does something beyond its output, so it runs although no answer needs it (IR.md Q39).
    `expression_names`: what its `expression` argument sees; empty for an operation without one.
    """

    name: str
    args: Mapping[str, bool]
    side_effect: bool
    summary: str
    expression_names: frozenset[str] = frozenset()


def _operation(name: str, args: str, summary: str, *, acts: bool = False, sees: str = "") -> OperationSpecification:
    """`args` is a list of words; a word that ends in `?` is optional."""
    words = args.split()
    return OperationSpecification(
        name=name,
        args=MappingProxyType({word.rstrip("?"): not word.endswith("?") for word in words}),
        side_effect=acts,
        summary=summary,
        expression_names=frozenset(sees.split()),
    )


SLOT_CALL = "slot.call"
"""The one that calls a generative slot of mellea's."""

ASKING = "action.require"
"""The one that waits for a person."""

_ON_STORE = ("features.", "hopsworks.")
_RUN = "input limits? budgets?"
_HTTP = "url headers? body? timeout_ms?"
_READ = "feature_group? feature_view? version? key key_column? as_of? features?"
_WRITE = "feature_group data event_time? version?"
_SEARCH = "index query limit? filters? embedder?"

_ALL = (
    _operation("transform.filter", "input expression", "keeps the elements that hold", sees="item context"),
    _operation("transform.map", "input expression", "makes a new element of each", sees="item context"),
    _operation(
        "transform.reduce",
        "input expression initial",
        "folds the elements into one value, from `initial` on",
        sees="item acc context",
    ),
    _operation("io.format_response", "template", "fills the placeholders of a nested value"),
    _operation("http.get", _HTTP, "fetches a URL"),
    _operation("http.post", _HTTP, "sends a body to a URL", acts=True),
    _operation("hopsworks.read_features", _READ, "reads one feature record"),
    _operation("hopsworks.write_features", _WRITE, "writes feature records", acts=True),
    _operation("hopsworks.get_model", "name version?", "gets a model from the registry"),
    _operation("hopsworks.vector_search", _SEARCH, "finds the nearest entries of an index"),
    _operation("features.read", _READ, "reads one record from the feature store"),
    _operation("features.write", _WRITE, "writes records to the feature store", acts=True),
    _operation("features.vector_search", _SEARCH, "finds the nearest entries in the feature store"),
    _operation(ASKING, "type payload? timeout_seconds? scope?", "waits for a person", acts=True),
    _operation(SLOT_CALL, "module slot args? role?", "calls a generative slot", acts=True),
    _operation("agent.run", f"agent {_RUN}", "asks an agent", acts=True),
    _operation("agent.chain", f"agents {_RUN}", "asks agents one after the other", acts=True),
    _operation("agent.parallel", f"agents on_error? {_RUN}", "asks agents side by side", acts=True),
    _operation(
        "agent.map_reduce",
        f"map reduce on_error? {_RUN}",
        "asks one agent about each item, and another about all answers",
        acts=True,
    ),
    _operation(
        "agent.plan_execute",
        f"planner executor synthesizer? parallel? {_RUN}",
        "lets one agent plan, another do each step, and a third sum it up",
        acts=True,
    ),
    _operation(
        "agent.debate",
        f"debaters moderator? max_rounds? {_RUN}",
        "lets agents debate, and a moderator decide",
        acts=True,
    ),
)

OPERATIONS: Mapping[str, OperationSpecification] = MappingProxyType({entry.name: entry for entry in _ALL})
"""Every operation of the language by name."""


HANDLE_OPERATIONS = frozenset({"hopsworks.get_model"})
"""Those whose value is no JSON and cannot leave its process (IR.md Q32)."""

VECTOR_SEARCHES = frozenset({"features.vector_search", "hopsworks.vector_search"})
"""Those that may ask a model to embed their query (IR.md Q31)."""


def is_on_store(operation: str) -> bool:
    """Whether an operation needs a feature store."""
    return operation.startswith(_ON_STORE) and operation in OPERATIONS


def has_side_effect(operation: str) -> bool:
    """Whether an operation acts on the world. One that is not in the catalogue is taken to."""
    known = OPERATIONS.get(operation)
    return known is None or known.side_effect
