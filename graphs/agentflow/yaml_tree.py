"""A YAML document as plain data, read event by event, so that a hostile one is refused early.

No anchors, aliases, merge keys, tags, duplicate keys or second document. libyaml is used where PyYAML has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from agentflow.scalars import NumberError, resolve
from agentflow.tree import Tree, TreeBuilder, TreeRejectedError

# A flow of 2,500 nodes takes 0.3 s with libyaml and 3.3 s with the Python parser.
_READER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAB_INDENT = re.compile(r"[ ]*\t")


def read_yaml(text: str, *, file: str, reader: Any = _READER) -> Tree:
    """Read one document. The tree's findings say what is wrong; nothing is raised."""
    builder = TreeBuilder(file)
    parser = reader(text)
    try:
        while parser.check_event():
            event: Any = parser.get_event()
            take = _TAKERS.get(event.__class__)
            if take is not None:
                take(builder, event)
    except TreeRejectedError:
        pass
    except yaml.YAMLError as exc:
        _report_syntax(builder, exc, text)
    finally:
        parser.dispose()
    return builder.tree()


def _scalar(builder: TreeBuilder, event: Any) -> None:
    mark = event.start_mark
    builder.scalar(_value(builder, event), mark.line, mark.column)


def _mapping(builder: TreeBuilder, event: Any) -> None:
    _refuse_extras(builder, event)
    builder.open({}, event.start_mark.line, event.start_mark.column)


def _sequence(builder: TreeBuilder, event: Any) -> None:
    _refuse_extras(builder, event)
    builder.open([], event.start_mark.line, event.start_mark.column)


def _end(builder: TreeBuilder, event: Any) -> None:
    builder.close()


def _alias(builder: TreeBuilder, event: Any) -> None:
    _report(builder, event, "yaml-alias", f"the alias *{event.anchor} is not allowed", "write the value out")
    builder.scalar("", event.start_mark.line, event.start_mark.column)


def _document(builder: TreeBuilder, event: Any) -> None:
    if builder.root is not None:
        hint = "one file holds one flow; remove everything from this --- on"
        _report(builder, event, "yaml-documents", "a second document begins here", hint)
        raise TreeRejectedError


_TAKERS: Mapping[type, Callable[[TreeBuilder, Any], None]] = {
    yaml.ScalarEvent: _scalar,
    yaml.MappingStartEvent: _mapping,
    yaml.SequenceStartEvent: _sequence,
    yaml.MappingEndEvent: _end,
    yaml.SequenceEndEvent: _end,
    yaml.AliasEvent: _alias,
    yaml.DocumentStartEvent: _document,
}


def _refuse_extras(builder: TreeBuilder, event: Any) -> None:
    if event.anchor is not None:
        _report(builder, event, "yaml-alias", f"the anchor &{event.anchor} is not allowed", "remove it")
    if event.tag is not None:
        _report(
            builder,
            event,
            "yaml-tag",
            f"the tag {event.tag[:60]} is not allowed",
            "remove it; quote text instead",
        )


def _value(builder: TreeBuilder, event: Any) -> Any:
    if event.anchor is not None or event.tag is not None:
        _refuse_extras(builder, event)
    if event.style:
        return event.value
    if event.value == "<<" and builder.expects_key:
        _report(builder, event, "yaml-merge-key", "the merge key << is not allowed", "write the keys out")
    try:
        return resolve(event.value)
    except NumberError as exc:
        _report(builder, event, "bad-number", str(exc), "quote it if it is meant as text")
        return event.value


def _report(builder: TreeBuilder, event: Any, code: str, message: str, hint: str) -> None:
    builder.report(code, message, hint, event.start_mark.line, event.start_mark.column)


def _report_syntax(builder: TreeBuilder, exc: yaml.YAMLError, text: str) -> None:
    mark: Any = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    line, column = (mark.line, mark.column) if mark else (0, 0)
    context, problem = (
        getattr(exc, "context", None),
        getattr(exc, "problem", None) or str(exc).splitlines()[0],
    )
    code, hint = "yaml-syntax", "check the indentation, the colons and the quotes around here"
    if _is_tab_trouble(text, line, column):
        code, hint = "yaml-tab", "indent with spaces"
        problem = "a tab stands where YAML wants spaces"
    elif context:
        problem = f"{problem} ({context})"
    try:
        builder.report(code, problem, hint, line, column)
    except TreeRejectedError:
        return


def _is_tab_trouble(text: str, line: int, column: int) -> bool:
    lines = text.split("\n", line + 1)
    row = lines[line] if line < len(lines) else ""
    return row[column : column + 1] == "\t" or _TAB_INDENT.match(row) is not None
