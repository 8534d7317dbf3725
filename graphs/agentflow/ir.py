"""The flow file as data: every object and field of the AgentFlow IR 1.0.

Shapes only. What the fields mean together (wiring, types, names) is checked by `agentflow.checks`; where a
field came from in the file is known to `agentflow.loading`. Unknown keys are errors everywhere except in
`args`, `schema`, `template` values and `position`. Field names are the file's own, but for Python's
keywords and pydantic's names: `from` is `source`, `schema` is `json_schema`.
"""

from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    field_validator,
    model_serializer,
)

from agentflow.types import PortType

NodeId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
PortName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1)]
Positive = Annotated[int, Field(strict=True, ge=1)]
MOST_COUNTED = 2**53
"""What a ledger can count: tokens, millionths of a dollar, milliseconds."""
Counted = Annotated[int, Field(strict=True, ge=1, le=MOST_COUNTED)]
NotNegative = Annotated[int, Field(strict=True, ge=0)]
Seconds = Annotated[float, Field(strict=True, gt=0)]
Flag = Annotated[bool, Field(strict=True)]
JsonSchema = dict[str, Any]
FailureKind = Literal["timeout", "error", "validation_fail"]
FailureType = FailureKind | Literal["not_found", "unavailable", "budget_exceeded", "policy_denied"]
Placement = Literal["per_node", "inline", "auto"]
Backoff = Literal["constant", "exponential"]


class IrObject(BaseModel):
    """A known object of the flow file: immutable, and a typo in a key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Port(IrObject):
    name: PortName
    type: PortType
    json_schema: JsonSchema | None = Field(default=None, alias="schema")
    optional: Flag = False
    description: str | None = None


class ErrorPort(IrObject):
    """The port that turns a node's failure into a value: `{reason, node, type, attempts}`."""

    name: PortName
    type: Literal["object"] = "object"
    json_schema: JsonSchema | None = Field(default=None, alias="schema")
    description: str | None = None


class ModelRef(IrObject):
    """A model named in the flow instead of a role. `endpoint` counts only if the server allows that host."""

    provider: Text
    name: Text
    endpoint: str | None = None


class Fallback(IrObject):
    """What happens after the last attempt failed in one of the ways in `on`: the model once, then the text."""

    on: tuple[FailureKind, ...]
    model: ModelRef | None = None
    role: Text | None = None
    static_response: str | None = None

    @field_validator("on", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class PromptTool(IrObject):
    """What a model may ask for: a node (`maps_to`), or installed code registered under the tool's name.

    Installed code knows its parameters and its description; what is said here counts instead.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: JsonSchema | None = None
    maps_to: NodeId | None = None


class Requirement(IrObject):
    text: Text
    check: str | None = None


class Prompt(IrObject):
    """A model call in front of the node's transform. Exactly one of `role`, `model` or the flow's default role."""

    template: str
    system: str | None = None
    role: Text | None = None
    model: ModelRef | None = None
    output_schema: JsonSchema | None = None
    temperature: Annotated[float, Field(strict=True, ge=0)] | None = None
    max_tokens: Positive | None = None
    fallback: Fallback | None = None
    tools: tuple[PromptTool, ...] = ()
    max_tool_rounds: Annotated[int, Field(strict=True, ge=1, le=32)] | None = None
    memory: Literal["none", "run", "session"] = "none"
    requirements: tuple[Requirement, ...] = ()
    repair_attempts: NotNegative | None = None
    images: tuple[str, ...] = ()

    @field_validator("requirements", mode="before")
    @classmethod
    def _text_is_enough(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        items = cast("list[Any]", value)
        return [{"text": item} if isinstance(item, str) else item for item in items]


class OperationSpec(IrObject):
    op: Text
    args: dict[str, Any] = Field(default_factory=dict)


class Declarative(IrObject):
    mode: Literal["declarative"]
    spec: OperationSpec


class Code(IrObject):
    """Python that defines `transform(inputs, context, state)`: in `spec`, or installed as `module: pkg.mod:name`."""

    mode: Literal["code"]
    spec: str | None = None
    module: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None


Transform = Annotated[Declarative | Code, Field(discriminator="mode")]


class Resources(IrObject):
    """What one replica of a node asks of Ray. `memory` is in bytes, or text such as `512Mi` or `2G`."""

    num_cpus: Annotated[float, Field(strict=True, ge=0)] | None = None
    num_gpus: Annotated[float, Field(strict=True, ge=0)] | None = None
    memory: NotNegative | Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?([KMGT]i?)?$")] | None = None


class Autoscaling(IrObject):
    min_replicas: NotNegative = 1
    max_replicas: Positive = 1
    target_ongoing_requests: Annotated[float, Field(strict=True, gt=0)] | None = None


class Cache(IrObject):
    ttl_seconds: Seconds
    key: str | None = None


class Runtime(IrObject):
    """How a node runs. `retries` counts attempts in all, so 1 means that nothing is retried (IR.md Q16)."""

    timeout_ms: Positive | None = None
    retries: Positive | None = None
    retry_backoff_ms: NotNegative | None = None
    requires_context: tuple[str, ...] = ()
    concurrency: Positive | None = None
    placement: Placement | None = None
    resources: Resources | None = None
    autoscaling: Autoscaling | None = None
    idempotent: Flag | None = None
    cache: Cache | None = None
    retry_on: tuple[FailureKind, ...] | None = None
    backoff: Backoff | None = None
    max_backoff_ms: Positive | None = None
    jitter: Flag | None = None


class State(IrObject):
    """A bucket of values that outlives the node: for one run (`request`) or across runs (`session`)."""

    scope: Literal["request", "session"]
    key: Text = "{node.id}"
    ttl_seconds: Seconds | None = None
    backend: Literal["memory", "redis", "hopsworks", "store"] = "memory"


class ForEach(IrObject):
    input: PortName
    max_parallel: Positive = 8
    on_item_error: Literal["fail", "skip", "collect"] = "fail"


class Loop(IrObject):
    until: Text
    max_rounds: Positive = 5


class Position(BaseModel):
    """Where an editor draws the node; it means nothing at run time, so other keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")
    x: float = 0
    y: float = 0


def _form_of_subflow(value: Any) -> str:
    return "path" if isinstance(value, str) else "flow"


Subflow = Annotated[Annotated[str, Tag("path")] | Annotated["Flow", Tag("flow")], Discriminator(_form_of_subflow)]
"""The path of a flow file, or, once it is loaded, the flow itself."""


class Node(IrObject):
    id: NodeId | None = None
    type: Literal["transform", "subflow"] = "transform"
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    error: ErrorPort | None = None
    prompt: Prompt | None = None
    transform: Transform | None = None
    runtime: Runtime = Field(default_factory=Runtime)
    state: State | None = None
    for_each: ForEach | None = None
    loop: Loop | None = None
    flow: Subflow | None = None
    description: str | None = None
    position: Position | None = None


class Edge(IrObject):
    source: Text = Field(alias="from")
    target: Text = Field(alias="to")
    condition: Text | None = None
    transform: Any = None


class Metadata(IrObject):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$", max_length=63)]
    description: str | None = None
    author: str | None = None
    created_at: str | None = None
    modified_at: str | None = None
    tags: tuple[str, ...] = ()


class Context(IrObject):
    """The request's fields: those it must carry and those it may."""

    requires: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


class InputField(IrObject):
    type: PortType | None = None
    json_schema: JsonSchema | None = Field(default=None, alias="schema")
    default: Any = None
    description: str | None = None

    @property
    def has_default(self) -> bool:
        return "default" in self.model_fields_set

    @model_serializer(mode="wrap")
    def _with_a_default_of_null(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A default of null is not the same as none."""
        data: dict[str, Any] = write(self)
        return {**data, "default": data.get("default", self.default)} if self.has_default else data


class OutputField(IrObject):
    type: PortType
    json_schema: JsonSchema | None = Field(default=None, alias="schema")
    description: str | None = None


class Defaults(IrObject):
    """What a node has when it says nothing itself."""

    role: Text | None = None
    timeout_ms: Positive | None = None
    retries: Positive | None = None
    retry_backoff_ms: NotNegative | None = None
    temperature: Annotated[float, Field(strict=True, ge=0)] | None = None
    max_tokens: Positive | None = None


class Budgets(IrObject):
    max_tokens: Counted | None = None
    max_cost: Annotated[float, Field(strict=True, gt=0, le=MOST_COUNTED // 10**6)] | None = None
    max_tool_calls: Counted | None = None
    max_turns: Counted | None = None
    max_runtime_seconds: Annotated[float, Field(strict=True, gt=0, le=MOST_COUNTED // 1000)] | None = None
    degrade_role: Text | None = None
    reserve: Literal["call", "run"] = "call"


class Expectation(IrObject):
    """What must come of a test's run. Without `error` it must end well; what is not said may be anything."""

    outputs: Any = None
    skipped: tuple[NodeId, ...] | None = None
    failed: tuple[NodeId, ...] | None = None
    calls: dict[str, NotNegative] = Field(default_factory=dict)
    error: (
        Literal["bad_input", "deadline_exceeded", "node_failed", "node_lost", "condition_failed", "no_output"] | None
    ) = None

    @property
    def has_outputs(self) -> bool:
        return "outputs" in self.model_fields_set


class FlowTest(IrObject):
    """One request with the answers that the models give, by role (or `provider/name` for a model of the flow)."""

    name: Text
    input: dict[str, Any]
    models: dict[str, Any] = Field(default_factory=dict)
    expect: Expectation = Field(default_factory=Expectation)


class KServeResources(IrObject):
    cpu: str | None = None
    memory: str | None = None
    gpu: str | None = None


class KServeDeployment(IrObject):
    namespace: str | None = None
    service_name: str | None = None
    min_replicas: NotNegative | None = None
    max_replicas: Positive | None = None
    target_rps: Positive | None = None
    resources: KServeResources | None = None


class RayDeployment(IrObject):
    placement: Placement | None = None
    resources: Resources | None = None
    autoscaling: Autoscaling | None = None
    concurrency: Positive | None = None


class Deployment(IrObject):
    target: Literal["kserve", "ray", "local", "lambda"] = "ray"
    kserve: KServeDeployment | None = None
    ray: RayDeployment | None = None


class Flow(IrObject):
    """A whole flow file. Use `agentflow.load` to get one from a file: it reports every finding with its place."""

    version: Literal["1.0"]
    metadata: Metadata
    context: Context
    nodes: dict[NodeId, Node]
    edges: tuple[Edge, ...] = ()
    inputs: dict[PortName, InputField] = Field(default_factory=dict)
    outputs: dict[PortName, OutputField] = Field(default_factory=dict)
    defaults: Defaults = Field(default_factory=Defaults)
    budgets: Budgets | None = None
    on_exceed: Literal["stop", "degrade", "ask"] | None = None
    durability: Literal["none", "journal"] = "none"
    tests: tuple[FlowTest, ...] = ()
    deployment: Deployment = Field(default_factory=Deployment)


Node.model_rebuild()
