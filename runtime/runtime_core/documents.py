"""Documents of settings: a file, or the same inline in a serve config, read under the limits of a flow file.

budgets.yaml:4: budgets[0].max_token_daily is not a known key; did you mean 'max_tokens_daily'?
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentflow.findings import Finding
from agentflow.loading import read_document
from agentflow.tree import Tree, shortened
from runtime_core.errors import DocumentInvalid

M = TypeVar("M", bound=BaseModel)
Source: TypeAlias = "str | PathLike[str] | Mapping[str, Any]"
"""The path of a file, or the document itself."""
Path: TypeAlias = "tuple[str | int, ...]"

MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Document(Generic[M]):
    """What was read, and where each part of it stands."""

    value: M
    _what: str
    _tree: Tree

    def refuse(self, problems: Mapping[Path, str]) -> None:
        """Raises DocumentInvalid where something is wrong that the model cannot know; nothing for no problems."""
        if problems:
            _refuse(self._what, self._tree, [_sentence(self._what, self._tree, *each) for each in problems.items()])


def load_document(source: Source, model: type[M], *, what: str, keys: Collection[str] = ()) -> Document[M]:
    """The document, held against its model. `what` says what it is ("the budgets"), `keys` are those that a typo means.

    Raises DocumentInvalid: one sentence with the place of everything that is wrong.
    """
    tree = read_document(source)
    if tree.findings:
        _refuse(what, tree, [_unread(what, finding) for finding in tree.findings])
    try:
        return Document(model.model_validate(tree.data), what, tree)
    except ValidationError as exc:
        details = exc.errors(include_url=False, include_input=False)
        _refuse(what, tree, [_sentence(what, tree, *_problem(each, tree.data, keys)) for each in details])


def _refuse(what: str, tree: Tree, problems: Sequence[str]) -> NoReturn:
    problems = tuple(dict.fromkeys(problems))
    more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    path = None if tree.root is None and tree.data is not None else tree.file
    raise DocumentInvalid(f"{'; '.join(problems[:MOST_NAMED])}{more}.", path=path, problems=problems)


def _unread(what: str, finding: Finding) -> str:
    hint = f" ({finding.hint})" if finding.code in ("duplicate-key", "bad-key") else ""
    where = what if finding.place is None else f"{finding.place.file}:{finding.place.line}"
    return f"{where}: {finding.message}{hint}"


def _problem(detail: ErrorDetails, data: Any, keys: Collection[str]) -> tuple[Path, str]:
    path = _path(detail["loc"], data)
    match detail["type"]:
        case "extra_forbidden":
            nearest = get_close_matches(str(path[-1]), keys, n=1)
            return path, "is not a known key" + (f"; did you mean '{nearest[0]}'?" if nearest else "")
        case "missing":
            return path, "is missing"
        case "union_tag_not_found" | "union_tag_invalid":
            context = detail.get("ctx", {})
            name = str(context.get("discriminator", "kind")).strip("'")
            wanted = context.get("expected_tags")
            return (*path, name), f"must be one of {wanted}" if wanted else "is missing; it says what this is"
        case "value_error":
            return path, detail["msg"].removeprefix("Value error, ")
        case _:
            return path, detail["msg"][:1].lower() + detail["msg"][1:]


def _path(location: Path, data: Any) -> Path:
    """The way through the data: pydantic's location names the members of unions too, which no document does."""
    path: list[str | int] = []
    here = data
    for number, step in enumerate(location, start=1):
        if isinstance(here, Mapping) and step in here:
            here = cast("Mapping[Any, Any]", here)[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(cast("list[Any]", here)):
            here = cast("list[Any]", here)[step]
        elif number < len(location) or not isinstance(here, Mapping):
            continue
        path.append(step)
    return tuple(path)


def _sentence(what: str, tree: Tree, path: Path, problem: str) -> str:
    place = tree.place(path)
    key = Finding("", "", path=path).dotted_path
    where = what if place is None else f"{place.file}:{place.line}"
    return f"{where}: {f'{shortened(key, 200)} ' if key else ''}{problem}"
