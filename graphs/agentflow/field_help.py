"""One sentence about every key of the flow file: editors show it, and findings give it as a hint."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel

_LATER = "Not supported yet: "

_HELP: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "Flow": {
            "version": 'The version of the flow language; write "1.0", in quotes.',
            "metadata": "What the flow is called, and by whom it was written.",
            "context": "The request fields that a caller must and may supply.",
            "nodes": "The nodes of the graph by their id.",
            "edges": "Where values go: from a node's output port to another node's input port.",
            "inputs": "Types, schemas and defaults of request fields.",
            "outputs": "The declared outputs; without them they follow from the edges to _output.",
            "defaults": "What a node has when it says nothing itself.",
            "budgets": "What one run may use, with the runs of its subflows.",
            "on_exceed": "What happens to a call that no longer fits: stop (the default), degrade or ask.",
            "durability": "Whether a run survives its process; journal is not supported yet.",
            "tests": "Tests of the flow; agentflow test runs them, without keys.",
            "deployment": "Where the flow runs and how large.",
        },
        "Metadata": {
            "name": "The flow's name, and that of the served model: letters, digits, dot, _ and -.",
            "description": "What the flow does, for people.",
            "author": "Who wrote the flow.",
            "created_at": "When the flow was written, as text.",
            "modified_at": "When the flow was last changed, as text.",
            "tags": "Words to find the flow by.",
        },
        "Context": {
            "requires": "The fields that every request must have.",
            "optional": "The fields that a request may have.",
        },
        "Node": {
            "id": "Optional; if given, the same as the node's key.",
            "type": "transform, or subflow for a node whose work is another flow.",
            "inputs": "The input ports. A node runs when every port that is not optional has a value.",
            "outputs": "The output ports.",
            "error": "The port that carries the node's failure as a value, instead of ending the run.",
            "prompt": "A model call in front of the transform.",
            "transform": "What the node does: an operation or code.",
            "runtime": "Timeout, attempts, placement and sizing of the node.",
            "state": "A bucket of values that the node's code may read and write.",
            "for_each": "Runs the node once per element of an array input; every output is then an array.",
            "loop": "Runs the node again on its own outputs, which feed the inputs of their names.",
            "flow": "The flow of a subflow: a file in this flow's folder or below it, or the flow itself.",
            "description": "What the node does, for people.",
            "position": "Where an editor draws the node; it means nothing at run time.",
        },
        "Port": {
            "name": "The port's name, unique in its node.",
            "type": "string, number, boolean, object, array, document, table or embedding.",
            "schema": "A JSON Schema that values of the port must fit.",
            "optional": "An optional input may stay empty; it is then null.",
            "description": "What the value is, for people.",
        },
        "ErrorPort": {
            "name": "The error port's name; edges start from it like from an output port.",
            "type": "Always object.",
            "schema": "A JSON Schema of the failure value, for people and editors.",
            "description": "What the handler gets, for people.",
        },
        "Prompt": {
            "template": "The user message: Jinja over the node's input ports.",
            "system": "The system message, taken as it is.",
            "role": "The llmhub role that answers.",
            "model": "A model by provider and name, instead of a role.",
            "output_schema": "A JSON Schema; the answer is then parsed as JSON and must fit.",
            "temperature": "How freely the model answers; 0 is the most predictable.",
            "max_tokens": "The longest answer, in tokens.",
            "fallback": "What to do when every attempt has failed.",
            "tools": "What the model may ask for before it answers: nodes of the flow, or installed tools.",
            "max_tool_rounds": "How often the model may ask for tools before it has to answer: 1 to 32, 8 by default.",
            "memory": "Which turns precede the prompt: none, those of the run, or also those of the session.",
            "requirements": "What the answer must fulfil; a model judges it, or the check that a requirement has.",
            "repair_attempts": "How often an answer that fails is asked for again with the reasons; 1 by default.",
            "images": "Images that go with the prompt: ${port} with a data: URL, or a URL that the provider opens.",
        },
        "ModelRef": {
            "provider": "The provider, as llmhub names it.",
            "name": "The model's name at that provider.",
            "endpoint": "The provider's address; it counts only where the server allows that host.",
        },
        "Fallback": {
            "on": 'Its failures: timeout, error, validation_fail; one or a list. Quote the key: "on".',
            "model": "The model to ask once more.",
            "role": "The role to ask once more.",
            "static_response": "The text to answer with at last; JSON where there is an output_schema.",
        },
        "PromptTool": {
            "name": "The tool's name, as the model sees it; without maps_to also that of an installed tool.",
            "description": "What the tool does, as the model sees it.",
            "parameters": "The JSON Schema of the tool's arguments; those of a node are its input ports.",
            "maps_to": "The node that runs as the tool; no edge may lead to it or start from it.",
        },
        "Requirement": {
            "text": "What the answer must fulfil.",
            "check": "An expression that decides it, instead of a model.",
        },
        "Declarative": {
            "mode": "declarative for an operation, code for Python.",
            "spec": "The operation and its arguments.",
        },
        "OperationSpec": {
            "op": "The operation, such as transform.filter or http.get.",
            "args": "The arguments; ${port}, ${context.field} and ${prompt_output} stand for values.",
        },
        "Code": {
            "mode": "declarative for an operation, code for Python.",
            "spec": "Python with transform(inputs, context, state), which returns the outputs by port.",
            "module": "Installed code as package.module:function, instead of spec.",
        },
        "Runtime": {
            "timeout_ms": "The longest time of one attempt, in milliseconds; 30000 when not given.",
            "retries": "How many attempts there are in all; 1 means that nothing is tried again.",
            "retry_backoff_ms": "The pause between attempts, in milliseconds; 1000 when not given.",
            "requires_context": "Request fields that the node reads.",
            "concurrency": "How many runs of the node one process does at a time.",
            "placement": "per_node: its own deployment; inline: in the predictor. auto is not supported yet.",
            "resources": "What one replica of the node asks of Ray.",
            "autoscaling": "How many replicas the node has.",
            "idempotent": "true: the node may be run again after its process died.",
            "cache": "Keeps successful outcomes for a while, per process and scope; not for nodes that act.",
            "retry_on": "The failures that are tried again: timeout, error, validation_fail; all when not given.",
            "backoff": "constant, or exponential: each pause is twice as long as the one before.",
            "max_backoff_ms": "The longest pause between attempts, in milliseconds; 60000 when it is exponential.",
            "jitter": "true: each pause takes anything between nothing and its full length.",
        },
        "Resources": {
            "num_cpus": "CPU cores per replica; 0.05 when not given.",
            "num_gpus": "GPUs per replica.",
            "memory": "Memory per replica: bytes, or text such as 512Mi or 2G.",
        },
        "Autoscaling": {
            "min_replicas": "The fewest replicas.",
            "max_replicas": "The most replicas.",
            "target_ongoing_requests": "How many calls a replica should have at a time, on average.",
        },
        "Cache": {
            "ttl_seconds": "How long an outcome is kept, in seconds.",
            "key": "What tells outcomes apart, such as {query}; otherwise the inputs and the request fields read.",
        },
        "State": {
            "scope": "request: for one run; session: across the runs of a session.",
            "key": "The bucket's name, with placeholders such as {context.session_id}.",
            "ttl_seconds": "How long a session bucket lives after the last write, in seconds.",
            "backend": "memory or store; redis and hopsworks are not supported yet.",
        },
        "ForEach": {
            "input": "The array input to go through; inside the node the port carries one element.",
            "max_parallel": "How many elements are worked on at a time; 8 when not given.",
            "on_item_error": "fail: a failed element fails the node; skip: it is left out; collect: its failure stays.",
        },
        "Loop": {
            "until": "The expression over the output ports that ends the loop.",
            "max_rounds": "How often the node runs at most, 5 when not given; it fails if until does not hold by then.",
        },
        "Position": {"x": "Distance from the left.", "y": "Distance from the top."},
        "Edge": {
            "from": "node.port, or node where it has one output; _input.field for a request field.",
            "to": "node.port, or node where it has one input; _output or _output.name for the answer.",
            "condition": "Over the source port's name, value and context; if it is false, nothing flows.",
            "transform": _LATER + "edges carry values as they are.",
        },
        "InputField": {
            "type": "The field's type; a V2 tensor is made from it.",
            "schema": "A JSON Schema that the field must fit.",
            "default": "The value when a request lacks the field; the field is then not required.",
            "description": "What the field is, for people.",
        },
        "OutputField": {
            "type": "The output's type; a V2 tensor is made from it.",
            "schema": "A JSON Schema of the output.",
            "description": "What the output is, for people.",
        },
        "Defaults": {
            "role": "The role of every prompt without a role or model.",
            "timeout_ms": "The longest time of one attempt, in milliseconds.",
            "retries": "How many attempts there are in all.",
            "retry_backoff_ms": "The pause between attempts, in milliseconds.",
            "temperature": "The temperature of every prompt without its own.",
            "max_tokens": "The longest answer of every prompt without its own limit, in tokens.",
        },
        "Budgets": {
            "max_tokens": "Tokens per run, those of its prompts and of its answers.",
            "max_cost": "Money per run, in dollars; every model then needs a price.",
            "max_tool_calls": "Tool calls per run.",
            "max_turns": "Model calls per run.",
            "max_runtime_seconds": "Seconds per run; they shorten its deadline.",
            "degrade_role": "The role that on_exceed: degrade makes those calls with that no longer fit.",
            "reserve": "Whether tokens and money are taken from the budgets above per call or for the whole run.",
        },
        "FlowTest": {
            "name": "The test's name.",
            "input": "The request.",
            "models": "What each role answers: text, JSON, a list in turn, or {error: timeout} and {error: error}.",
            "expect": "What must come of it; without error the run must end well.",
        },
        "Expectation": {
            "outputs": "The flow's whole answer.",
            "skipped": "The nodes that are skipped, and no others.",
            "failed": "The nodes that fail, and no others.",
            "calls": "How often each role is asked, with the attempts that fail; other roles are not counted.",
            "error": "The code of the error with which the run ends, such as node_failed.",
        },
        "Deployment": {
            "target": "ray, kserve or local.",
            "kserve": "The KServe InferenceService.",
            "ray": "Placement and sizing on Ray Serve for all nodes.",
        },
        "KServeDeployment": {
            "namespace": "The Kubernetes namespace.",
            "service_name": "The Kubernetes name; made from the flow's name when not given.",
            "min_replicas": "The fewest predictor replicas.",
            "max_replicas": "The most predictor replicas.",
            "target_rps": "Requests per second that one replica should get.",
            "resources": "What one predictor pod asks for.",
        },
        "KServeResources": {
            "cpu": 'CPU, as text: "1" or "500m".',
            "memory": 'Memory, as text: "2Gi".',
            "gpu": 'GPUs, as text: "1".',
        },
        "RayDeployment": {
            "placement": "Where nodes run that do not say: per_node or inline. auto is not supported yet.",
            "resources": "What each replica asks of Ray where the node does not say.",
            "autoscaling": "How many replicas a node has that does not say.",
            "concurrency": "How many runs a process does at a time of a node that does not say.",
        },
    }
)


def help_for(model: type[BaseModel] | str, key: str) -> str:
    """The sentence about `key` of a model of `agentflow.ir`, or nothing."""
    name = model if isinstance(model, str) else model.__name__
    return _HELP.get(name, {}).get(key, "")
