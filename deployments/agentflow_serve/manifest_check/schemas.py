"""Custom resources against the schemas of their CRDs, read as the API server reads them.

A structural schema says some things that JSON Schema has no word for (`int-or-string`, lists that are maps, objects
that keep unknown fields), and unknown fields are errors, as in `kubectl apply` with strict validation. Rules in CEL are
left to the server.
"""

from __future__ import annotations

import copy
import datetime
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from agentflow_serve.manifest_check.report import Found, mapping

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KEPT = {
    "type",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "required",
    "multipleOf",
    "format",
}
_LABEL = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        "namespace": {"type": "string", "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": 63, "pattern": _LABEL},
        },
        "annotations": _TEXTS,
        "finalizers": {"type": "array"},
        "ownerReferences": {"type": "array"},
    },
}
_CEL = "x-kubernetes-validations"


class Schemas:
    """The schemas of a folder of CRDs: YAML or JSON, plain or with gzip. Only `kinds` are read."""

    def __init__(self, folder: Path, kinds: set[str]) -> None:
        self._raw: dict[tuple[str, str], dict[str, Any]] = {}
        self._validators: dict[tuple[str, str], Any] = {}
        files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
        for file in files:
            if file.is_file() and any(file.name.endswith(end) for end in _READERS):
                self._read(file, kinds)

    def has(self, api: str, kind: str) -> bool:
        return (api, kind) in self._raw

    def has_rules(self) -> bool:
        """Whether a schema has rules that only an API server evaluates."""
        return any(_CEL in json.dumps(schema) for schema in self._raw.values())

    def check(self, document: Mapping[str, Any]) -> Found:
        """Every place where a document does not fit the schema of its kind."""
        from jsonschema.exceptions import best_match

        key = (str(document.get("apiVersion")), str(document.get("kind")))
        if key not in self._validators:
            self._validators[key] = _validator(_converted(self._raw[key], root=True))
        filled = copy.deepcopy(dict(document))
        _fill(self._raw[key], filled)
        for error in self._validators[key].iter_errors(filled):
            reason = best_match([error]) if error.context else error
            yield ".".join(map(str, error.absolute_path)), _sentence(reason)

    def _read(self, file: Path, kinds: set[str]) -> None:
        text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text("utf-8")
        if not any(f'"kind":"{kind}"' in text or f"kind: {kind}\n" in text for kind in kinds):
            return
        is_json = ".json" in file.suffixes
        for crd in [json.loads(text)] if is_json else yaml.load_all(text, Loader=_LOADER):
            spec = mapping(mapping(crd).get("spec"))
            kind = mapping(spec.get("names")).get("kind")
            if mapping(crd).get("kind") == "CustomResourceDefinition" and kind in kinds:
                for version in spec["versions"]:
                    schema = version["schema"]["openAPIV3Schema"]
                    self._raw[f"{spec['group']}/{version['name']}", kind] = schema


_READERS = (".yaml", ".yml", ".json", ".yaml.gz", ".yml.gz", ".json.gz")


def _converted(schema: Mapping[str, Any], *, root: bool = False, strict: bool = True) -> dict[str, Any]:
    """A structural schema as JSON Schema."""
    made = {key: value for key, value in schema.items() if key in _KEPT}
    for bound in ("minimum", "maximum"):  # OpenAPI's booleans beside the bound
        name = f"exclusive{bound.capitalize()}"
        if isinstance(made.get(name), bool) and made.pop(name):
            made[name] = made.pop(bound)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        pattern = {"pattern": made.pop("pattern")} if "pattern" in made else {}
        made["anyOf"] = [{"type": "integer"}, {"type": "string", **pattern}]
    if "properties" in schema:
        made["properties"] = {name: _converted(each, strict=strict) for name, each in schema["properties"].items()}
    if root or schema.get("x-kubernetes-embedded-resource"):
        own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _METADATA if root else {}}
        made["properties"] = {**made.get("properties", {}), **own}
    rest = schema.get("additionalProperties")
    if isinstance(rest, dict):
        made["additionalProperties"] = _converted(rest, strict=strict)
    elif strict and "properties" in made and not rest and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if "items" in schema:
        made["items"] = _converted(schema["items"], strict=strict)
    if not schema.get("x-kubernetes-int-or-string"):
        for word in ("allOf", "anyOf", "oneOf"):  # they judge values and name no fields
            if word in schema:
                made[word] = [_converted(each, strict=False) for each in schema[word]]
    if "not" in schema:
        made["not"] = _converted(schema["not"], strict=False)
    if schema.get("x-kubernetes-list-type") == "set":
        made["uniqueItems"] = True
    if schema.get("x-kubernetes-list-type") == "map":
        made["x-map-keys"] = schema["x-kubernetes-list-map-keys"]
    return {"anyOf": [{"type": "null"}, made]} if schema.get("nullable") else made


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker, ValidationError
    from jsonschema.validators import extend

    formats = FormatChecker(formats=[])

    def is_int(bits: int) -> Any:
        def holds(value: Any) -> bool:
            return not isinstance(value, int) or -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)

        return holds

    formats.checks("int32")(is_int(32))
    formats.checks("int64")(is_int(64))

    @formats.checks("date-time", raises=ValueError)
    def _is_time(value: Any) -> bool:
        return not isinstance(value, str) or bool(datetime.datetime.fromisoformat(value))

    def map_keys(_validator: Any, keys: list[str], instance: Any, _schema: Any) -> Iterator[ValidationError]:
        seen: set[tuple[str, ...]] = set()
        for number, item in enumerate(instance if isinstance(instance, list) else ()):
            key = tuple(str(mapping(item).get(name)) for name in keys)
            if key in seen:
                named = ", ".join(f"{name} {value}" for name, value in zip(keys, key, strict=True))
                yield ValidationError(f"the entry with {named} stands twice", path=[number])
            seen.add(key)

    return extend(Draft202012Validator, {"x-map-keys": map_keys})(schema, format_checker=formats)  # pyright: ignore


def _fill(schema: Mapping[str, Any], value: Any) -> None:
    """Set defaults and drop nulls in place, under objects that are there, as the server does before it validates."""
    if isinstance(value, dict):
        known = mapping(schema.get("properties"))
        for name, each in known.items():
            if value.get(name, ...) is None and not each.get("nullable"):
                del value[name]
            if name not in value and "default" in each:
                value[name] = copy.deepcopy(each["default"])
            if name in value:
                _fill(each, value[name])
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            for name in value.keys() - known.keys():
                _fill(rest, value[name])
    elif isinstance(value, list):
        for item in value:
            _fill(mapping(schema.get("items")), item)


def _sentence(error: Any) -> str:
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            unknown = [name for name in error.instance if name not in known]
            return f"the CRD knows no {', '.join(map(repr, unknown))} here{_meant(unknown[0], known)}"
        case "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return f"the CRD requires {', '.join(map(repr, missing))}"
        case "type":
            return f"{_short(error.instance)} is not of the type {error.validator_value}"
        case "enum":
            return f"{_short(error.instance)} is none of {', '.join(map(str, error.validator_value))}"
        case _:
            return error.message[:300]


def _meant(name: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
