"""Row-level security: a policy on each table that belongs to scopes, and the setting of a transaction that it reads.

The setting is empty, `*` for all scopes, or an array of scopes, which begins with a brace. A server applies no policy
to superusers and to roles with BYPASSRLS.
"""

from __future__ import annotations

from runtime_core.errors import StoreValueError
from runtime_core.stores.scope import scope_ids_of
from runtime_core.stores.sql import OpFactory

_SETTING = "agentflow.scopes"
_EVERYWHERE = "*"

# In subqueries, so that the server reads the setting once for a statement and not for every row.
_SAID = f"current_setting('{_SETTING}', true)"
_MAY_TOUCH = (
    f"scope_id = ANY ((SELECT NULLIF(NULLIF({_SAID}, ''), '{_EVERYWHERE}')::text[])::text[])"
    f" OR (SELECT {_SAID} = '{_EVERYWHERE}')"
)

POLICY = "scope_rows"
PROTECTION = (
    # FORCE is for the tables' owner, which the service itself usually is.
    "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY {POLICY} ON {{table}} USING ({_MAY_TOUCH}) WITH CHECK ({_MAY_TOUCH})",
)
"""What protects a table, in the order of a migration."""


def setting_of(op_factory: OpFactory[object]) -> str:
    """What the setting is while the operation runs."""
    scope_ids = scope_ids_of(op_factory)
    if scope_ids is None:
        return _EVERYWHERE
    return "{" + ",".join(map(_element, scope_ids)) + "}" if scope_ids else ""


def set_local(setting: str) -> str:
    """The statement that sets it for the rest of the transaction. Raises StoreValueError for what is no text."""
    if "\0" in setting or not _is_unicode(setting):
        raise StoreValueError("A scope id cannot be stored: it must be Unicode without NUL.")
    # An E string means the same whatever the server's standard_conforming_strings.
    text = setting.replace("\\", "\\\\").replace("'", "''")
    return f"SET LOCAL {_SETTING} = E'{text}'"


def _element(scope_id: str) -> str:
    return '"' + scope_id.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
