"""Ids: unique where they are made, and refused where they are not canonical."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime_core.errors import IdentityError
from runtime_core.ids import (
    RandomIds,
    SequentialIds,
    check_id,
    check_name,
    check_scope_id,
    check_trace_id,
    new_trace_id,
    trace_id_or_new,
)


def test_random_ids_carry_their_prefix_and_never_repeat() -> None:
    ids = {RandomIds().new("run") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"run-[0-9a-f]{32}", id_) for id_ in ids)
    assert all(check_name(id_) for id_ in ids)


def test_sequential_ids_count_per_prefix() -> None:
    ids = SequentialIds()
    assert [ids.new("run"), ids.new("call"), ids.new("run")] == ["run-1", "call-1", "run-2"]


@pytest.mark.parametrize("scope", ["default", "tenant-123", "a b", "user@example.org", "Müller", "租户", "x" * 128])
def test_a_canonical_scope_is_taken_as_it_is(scope: str) -> None:
    assert check_scope_id(scope) == scope


@pytest.mark.parametrize(
    "scope",
    ["", " ", " a", "a ", "a\n", "a\0", "a\x7fb", "x" * 129, "e\u0301", "\ufb01\u0301\u0327"]
    + [f"a{hidden}b" for hidden in "\u00a0\u00ad\u200b\u200d\u202e\u2028\ufeff\ud800\U000e0041\u0378"]
    + ["\u3000a", "a\u2003"],
    ids=ascii,
)
def test_any_other_spelling_of_a_scope_is_refused(scope: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_scope_id(scope)
    assert caught.value.what == "scope id"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=140))
def test_an_accepted_id_has_no_other_spelling_that_is_accepted(text: str) -> None:
    try:
        check_id(text)
    except IdentityError as error:
        assert str(error).isascii() and str(error).isprintable() and len(str(error)) < 400
        return
    assert text == unicodedata.normalize("NFC", text) == text.strip()
    assert text.isprintable() and 1 <= len(text) <= 128
    text.encode()


@pytest.mark.parametrize("name", ["a", "0", "returns_desk", "a.b-c_d", "a" * 64])
def test_a_safe_name_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "%2e", "-a", "_a", "A", "a\n", "a\0", "é", "c:", "a" * 65],
    ids=ascii,
)
def test_a_name_that_could_leave_its_folder_or_its_line_is_refused(name: str) -> None:
    with pytest.raises(IdentityError):
        check_name(name)


def test_new_trace_ids_are_w3c_trace_ids() -> None:
    first, second = new_trace_id(), new_trace_id()
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{32}", first)


@pytest.mark.parametrize("offered", ["4bf92f3577b34da6a3ce929d0e0e4736", "trace-456", "A.b_c-1", "x" * 128])
def test_a_harmless_trace_id_of_the_client_is_kept(offered: str) -> None:
    assert trace_id_or_new(offered) == check_trace_id(offered) == offered


@pytest.mark.parametrize("offered", [None, "", "a b", "a\r\nX-Evil: 1", "a\n", "é", "x" * 129, "${jndi:x}"])
def test_any_other_trace_id_is_replaced(offered: str | None) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id_or_new(offered))
    if offered is not None:
        with pytest.raises(IdentityError):
            check_trace_id(offered)
