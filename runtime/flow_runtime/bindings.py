"""From what a node produced to its output ports (IR.md Q6, Q15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.fit import misfit
from agentflow.ir import Port
from agentflow.schemas import Schema, compile_schema
from flow_runtime.errors import OutputInvalid


class OutputBinder:
    """Binds one node's results to its ports and checks them; the port schemas are compiled once.

    Without `checks` values pass whatever they are: a node with `for_each` declares whole arrays, not elements.
    """

    def __init__(self, node: str, ports: tuple[Port, ...], *, checks: bool = True) -> None:
        self._node = node
        self._ports = ports
        self._checks = checks
        self._schemas: dict[str, Schema] = {
            port.name: compile_schema(port.json_schema) for port in ports if port.json_schema is not None
        }

    def bind_value(self, value: Any) -> dict[str, Any]:
        """Bind what a prompt or an operation gave: whole to a single port, else by name from an object."""
        if len(self._ports) == 1:
            name = self._ports[0].name
            named = isinstance(value, Mapping) and set(value) == {name}  # pyright: ignore[reportUnknownArgumentType]
            return self.check(dict(value) if named else {name: value})
        return self.bind_ports(value)

    def bind_ports(self, value: Any) -> dict[str, Any]:
        """Bind an object keyed by port names, as a code transform returns it.

        Raises OutputInvalid when it is no object, when a port that is not optional is missing, or when a
        value does not fit its port.
        """
        if not self._ports:
            return {}
        if not isinstance(value, Mapping):
            names = ", ".join(port.name for port in self._ports)
            kind = type(value).__name__
            raise OutputInvalid(f"the result must be an object with the ports {names}, but it is of type {kind}")
        missing = [port.name for port in self._ports if not port.optional and port.name not in value]
        if missing:
            raise OutputInvalid(f"the result lacks the output port {', '.join(missing)}")
        return self.check({port.name: value.get(port.name) for port in self._ports})

    def check(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """`outputs`, which has every port, if its values fit. Raises OutputInvalid."""
        for port in self._ports if self._checks else ():
            value = outputs[port.name]
            if value is None and port.optional:
                continue
            if problem := misfit(value, port.type, self._schemas.get(port.name)):
                raise OutputInvalid(f"output port '{port.name}': {problem}")
        return outputs
