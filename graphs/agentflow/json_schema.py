"""The JSON Schema of the flow file, for editors: put it beside a flow and name it in the first line.

# yaml-language-server: $schema=agentflow-1.0.schema.json
"""

from __future__ import annotations

from typing import Any

from agentflow.field_help import help_for
from agentflow.ir import Flow

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEXT_OR_OBJECT = ("Prompt", "requirements")
_ONE_OR_MANY = ("Fallback", "on")


def flow_json_schema() -> dict[str, Any]:
    """The schema as plain data, made from the model in `ir`, with a description for every key."""
    definitions: dict[str, Any] = Flow.model_json_schema(by_alias=True)["$defs"]
    definitions["Node"]["properties"]["flow"]["anyOf"] = [{"type": "string"}, {"$ref": "#"}, {"type": "null"}]
    schema: dict[str, Any] = {**definitions.pop("Flow"), "$defs": definitions}
    for name, definition in {**definitions, "Flow": schema}.items():
        _describe(name, definition)
    _allow_short_forms(definitions)
    definitions["Deployment"]["properties"]["target"]["enum"].remove("lambda")
    return {"$schema": DIALECT, **schema, "title": "AgentFlow 1.0", "description": "A flow file of AgentFlow 1.0."}


def _describe(name: str, definition: dict[str, Any]) -> None:
    properties: dict[str, dict[str, Any]] = definition.get("properties", {})
    for key, property_schema in properties.items():
        property_schema.pop("title", None)
        if text := help_for(name, key):
            property_schema["description"] = text
        if "patternProperties" in property_schema:
            property_schema["additionalProperties"] = False


def _allow_short_forms(definitions: dict[str, Any]) -> None:
    """What the models accept beside the full form."""
    model, key = _ONE_OR_MANY
    on: dict[str, Any] = definitions[model]["properties"][key]
    definitions[model]["properties"][key] = {
        "description": on.pop("description"),
        "anyOf": [on, on["items"]],
    }
    model, key = _TEXT_OR_OBJECT
    requirements: dict[str, Any] = definitions[model]["properties"][key]
    requirements["items"] = {"anyOf": [requirements["items"], {"type": "string", "minLength": 1}]}
