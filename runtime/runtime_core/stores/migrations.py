"""Numbered schema changes, per component, applied in one transaction.

Two processes may start at once: the second waits for the first one's transaction and finds the work done.
A database that is newer than this code is refused, because an old process would misread it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runtime_core.errors import StoreSchemaError
from runtime_core.stores.database import Database
from runtime_core.stores.dialect import Dialect
from runtime_core.stores.scope import everywhere
from runtime_core.stores.sql import Op, Sql

_COMPONENT = re.compile(r"[a-z_][a-z0-9_]{0,30}")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: `version` counts 1, 2, 3, ...; statements write column types as {int}, {text}, ...

    From this step on the rows of the tables in `scoped` belong to their `scope_id`, where the database can see to that:
    every table that has one is named in some step. `only` is the name of the one dialect that the step is for.
    """

    version: int
    statements: tuple[str, ...] = ()
    scoped: tuple[str, ...] = ()
    only: str | None = None


async def migrate(database: Database, component: str, migrations: Sequence[Migration]) -> None:
    """Bring `component` to its last version; raises StoreSchemaError if the database is already beyond it."""
    if not _COMPONENT.fullmatch(component):
        raise ValueError(f"component {component!r} does not match {_COMPONENT.pattern}")
    if [step.version for step in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError(f"the migrations of {component} must be numbered 1, 2, 3, ... without a gap")
    await database.run(everywhere(lambda: _migrate(component, migrations, database.dialect)))


def _migrate(component: str, migrations: Sequence[Migration], dialect: Dialect) -> Op[None]:
    types = dialect.types
    for statement in dialect.alone:
        yield Sql(statement)
    yield Sql(_VERSIONS.format_map(types))
    rows = yield Sql("SELECT version FROM schema_versions WHERE component = ?", (component,))
    found: int = rows[0][0] if rows else 0
    known = len(migrations)
    if found > known:
        raise StoreSchemaError(
            f"The tables of {component} are at version {found}, but this program knows only {known}; "
            "upgrade the program, an older one would misread them.",
            component=component,
            found=found,
            known=known,
        )
    for step in migrations[found:]:
        if step.only not in (None, dialect.name):
            continue
        for statement in step.statements:
            yield Sql(statement.format_map(types))
        for table in step.scoped:
            for statement in dialect.protection:
                yield Sql(statement.format(table=table))
    yield Sql(
        "INSERT INTO schema_versions (component, version) VALUES (?, ?)"
        " ON CONFLICT (component) DO UPDATE SET version = excluded.version",
        (component, known),
    )


_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_versions (component {text} PRIMARY KEY, version {int} NOT NULL)"
