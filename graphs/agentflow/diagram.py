"""A flow as a Mermaid flowchart, for pull requests and documentation."""

from __future__ import annotations

from agentflow.ir import Code, Declarative, Edge, Flow, Node
from agentflow.wiring import ANSWER, REQUEST

_ESCAPES = str.maketrans(
    {
        "#": "#35;",
        '"': "#quot;",
        "&": "#amp;",
        "<": "#lt;",
        ">": "#gt;",
        "`": "#96;",
        "\\": "#92;",
        "\n": " ",
        "\r": " ",
        "\t": " ",
    }
)
MAX_LABEL = 80


def mermaid(flow: Flow) -> str:
    """The flowchart as text that ends with a line break; the same flow always gives the same text.

    A node says what it does (a prompt, an operation, code). Edges carry their ports and conditions; those
    from error ports are dotted; a line with a circle leads to a tool. Ends that the flow does not have are left out.
    """
    ids = {name: f"n{index}" for index, name in enumerate(flow.nodes)} | {
        REQUEST: "request",
        ANSWER: "answer",
    }
    lines = ["flowchart TD", f'  request(["{REQUEST}"])']
    lines += [f'  {ids[name]}["{_label(name, node)}"]' for name, node in flow.nodes.items()]
    lines.append(f'  answer(["{ANSWER}"])')
    for edge in flow.edges:
        source, target = edge.source.partition(".")[0], edge.target.partition(".")[0]
        if source in ids and target in ids:
            lines.append(f"  {ids[source]} {_arrow(flow, edge)} {ids[target]}")
    for name, node in flow.nodes.items():
        for tool in node.prompt.tools if node.prompt else ():
            if tool.maps_to in flow.nodes:
                lines.append(f'  {ids[name]} --o|"{escaped(tool.name)}"| {ids[tool.maps_to]}')
    return "\n".join(lines) + "\n"


def _label(name: str, node: Node) -> str:
    return "<br/>".join([f"<b>{escaped(name)}</b>", *(escaped(mark) for mark in _marks(node))])


def _marks(node: Node) -> list[str]:
    marks: list[str] = []
    if node.prompt is not None:
        model = node.prompt.role or (node.prompt.model.name if node.prompt.model else "")
        marks.append(f"prompt {model}".strip())
    match node.transform:
        case Declarative(spec=spec):
            marks.append(spec.op)
        case Code(module=module):
            marks.append(f"code {module or ''}".strip())
        case None:
            pass
    if isinstance(node.flow, Flow):
        marks.append(f"flow {node.flow.metadata.name}")
    if node.for_each is not None:
        marks.append(f"for each of {node.for_each.input}")
    if node.loop is not None:
        marks.append(f"until {node.loop.until}")
    if node.state is not None:
        marks.append(f"state {node.state.scope}")
    return marks


def _arrow(flow: Flow, edge: Edge) -> str:
    line = "-.->" if _is_error(flow, edge) else "-->"
    label = _edge_label(edge)
    return f'{line}|"{label}"|' if label else line


def _edge_label(edge: Edge) -> str:
    source, target = edge.source.partition(".")[2], edge.target.partition(".")[2]
    ports = source if source == target or not target else f"{source} → {target}" if source else target
    condition = f"if {edge.condition}" if edge.condition is not None else ""
    return "<br/>".join(escaped(part) for part in (ports, condition) if part)


def _is_error(flow: Flow, edge: Edge) -> bool:
    name, _, port = edge.source.partition(".")
    node = flow.nodes.get(name)
    return node is not None and node.error is not None and node.error.name == port


def escaped(text: str) -> str:
    """Text that is only text inside a quoted Mermaid label."""
    short = text if len(text) <= MAX_LABEL else f"{text[:MAX_LABEL]}..."
    return "".join(char if char.isprintable() else " " for char in short.translate(_ESCAPES))
