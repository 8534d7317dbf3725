import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2 import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agentflow.errors import TemplateError, TemplateFailed
from agentflow.templates import compile_template

DRAFT = """\
Tier: {{ shopper.tier }}; refunds: {{ shopper.refund_rate | default(0) }}
{% for t in history %}{{ t.role }}: {{ t.text }}
{% endfor %}
Rules:
{% for r in rules %}- {{ r.title }}
{% endfor %}
Question: {{ query }}
"""


def render(source: str, **values: Any) -> str:
    return compile_template(source, values.keys()).render(values)


def test_a_prompt_of_a_flow_renders() -> None:
    text = render(
        DRAFT,
        shopper={"tier": "gold"},
        history=[{"role": "user", "text": "hi"}, {"role": "desk", "text": "hello"}],
        rules=[{"title": "30 days"}],
        query="May I return it?",
    )
    assert text == "Tier: gold; refunds: 0\nuser: hi\ndesk: hello\n\nRules:\n- 30 days\n\nQuestion: May I return it?"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ xs[-2:] }}", "[2, 3]"),
        ("{{ xs | length }}/{{ xs | count }}", "3/3"),
        ("{{ none }} {{ flag }} {{ f }}", "None True 2.5"),
        ("{{ xs.0 }}{{ xs[1] }}{{ o['a b'] }}", "12x"),
        ("{{ o.items }} {{ o.keys }} {{ o.values }} {{ o.get }}", "1 2 3 4"),
        ("{% if flag and not none %}yes{% elif xs %}maybe{% else %}no{% endif %}", "yes"),
        ("{{ 'a' if f > 3 else 'b' }}{{ 'x' if false }}", "b"),
        ("{% for x in xs %}{{ loop.index }}:{{ x }}{{ ', ' if not loop.last }}{% endfor %}", "1:1, 2:2, 3:3"),
        ("{% for x in xs if x is odd %}{{ x }}/{{ loop.length }} {% endfor %}", "1/2 3/2 "),
        ("{% for x in [] %}{{ x }}{% else %}nothing{% endfor %}", "nothing"),
        ("{% for k, v in small | items %}{{ k }}={{ v }};{% endfor %}", "a=1;"),
        ("{% for x in xs %}{{ loop.previtem | default('-') }}{% endfor %}", "-12"),
        ("{{ missing.deep | default('gone') }}", "gone"),
        ("{{ missing.deep is defined }} {{ missing is mapping }}", "False True"),
        ("{{ xs | join(', ') }} {{ rows | join('+', attribute='n') }}", "1, 2, 3 2+1"),
        ("{{ rows | sort(attribute='n') | first }}", "{'n': 1}"),
        ("{{ rows | sum('n') }} {{ xs | max }} {{ xs | min }} {{ -5 | abs }}", "3 3 1 5"),
        ("{{ name | upper | replace('A', 'e') | title }} {{ name[::-1] }}", "Ede adA"),
        ("{{ 'a b c d e f' | truncate(7) }} {{ 'one two' | wordcount }}", "a b c d e f 2"),
        ("{{ 2.567 | round(1) }} {{ '7' | int }} {{ 'x' | float(1.5) }}", "2.6 7 1.5"),
        ("{{ {'a': '<b> \"é\"'} | tojson }}", '{"a": "<b> \\"é\\""}'),
        ("{{ 'b\nc' | indent(2) }}", "b\n  c"),
        ("{{ [3, 1, 3] | unique | list }} {{ 'abc' | reverse }} {{ xs | last }}", "[3, 1] cba 3"),
        ("{{ 1 in xs }} {{ 9 not in xs }} {{ 'da' in name }} {{ 'a' in small }}", "True True True True"),
        ("{{ 1 < 2 < 3 }} {{ xs == [1, 2, 3] }} {{ name != 'x' }}", "True True True"),
        ("{% raw %}{{ not a name }}{% endraw %}{# a comment #}", "{{ not a name }}"),
        ("a{%- if flag %} b {%- endif %}\n", "a b"),
        ("{{ context.user_id }}", "u-1"),
    ],
)
def test_a_template_means_what_it_means_in_jinja(source: str, text: str) -> None:
    values: dict[str, Any] = {
        "xs": [1, 2, 3],
        "rows": [{"n": 2}, {"n": 1}],
        "o": {"items": 1, "keys": 2, "values": 3, "get": 4, "a b": "x"},
        "small": {"a": 1},
        "missing": {},
        "flag": True,
        "f": 2.5,
        "name": "Ada",
        "context": {"user_id": "u-1"},
    }
    assert render(source, **values) == text


HOSTILE_TEXT = [
    "'''",
    '"""',
    "\\",
    "\\n\\'",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "${x}",
    "\u2028",
    "\x00",
    "#}",
    "\ud83d\ude00",
]


@pytest.mark.parametrize("text", HOSTILE_TEXT)
def test_what_a_value_contains_is_never_read(text: str) -> None:
    assert render("<{{ x }}|{{ x | upper | lower }}>", x=text) == f"<{text}|{text.upper().lower()}>"


@pytest.mark.parametrize("text", ["'''", '"""', "\\", "\\n\\'", "\\x41 \\N{DASH}", "$ { } % #", "é\u2028\U0001f600"])
def test_quotes_and_backslashes_in_the_template_stay_as_they_are(text: str) -> None:
    assert render(text + "{{ x }}" + text, x=1) == f"{text}1{text}"


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("\n\n{{ quesion }}", 3, "the name 'quesion' is not known here; known are: x, xs"),
        ("{% for a in xs %}{% endfor %}{{ a }}", 1, "'a' is not known"),
        ("{% for a in a %}{% endfor %}", 1, "'a' is not known"),
        ("{{ loop.index }}", 1, "'loop' is not known"),
        ("{{ x() }}", 1, "calling something"),
        ("{{ x.upper() }}", 1, "calling something"),
        ("{{ range(9) }}", 1, "calling something"),
        ("{{ lipsum() }}", 1, "calling something"),
        ("{{ self.x }}", 1, "'self' means something else"),
        ("{{ x + 1 }}", 1, "no arithmetic"),
        ("{{ -x }}", 1, "no arithmetic"),
        ("{{ x ** 2 }}", 1, "no arithmetic"),
        ("{{ 'a' % x }}", 1, "no arithmetic"),
        ("{{ x ~ 'a' }}", 1, "`~`"),
        ("{{ [x] }}", 1, "constants only"),
        ("{{ {'a': x} }}", 1, "constants only"),
        ("{{ x.__class__ }}", 1, "starts with an underscore"),
        ("{{ x._y }}", 1, "starts with an underscore"),
        ("{{ x | attr('__class__') }}", 1, "no filter 'attr'"),
        ("{{ x | format(1) }}", 1, "no filter 'format'"),
        ("{{ xs | map('upper') }}", 1, "no filter 'map'"),
        ("{{ xs | selectattr('a') }}", 1, "no filter 'selectattr'"),
        ("{{ x | e }}", 1, "no filter 'e'"),
        ("{{ x is in xs }}", 1, "no test 'in'"),
        ("{{ x is callable }}", 1, "no test 'callable'"),
        ("{{ x | join(*xs) }}", 1, "plain arguments"),
        ("{{ x | each of }}", 1, "expected token"),
        ("{% set y = 1 %}", 1, "`set`"),
        ("{% set y %}a{% endset %}", 1, "`set`"),
        ("{% macro f() %}{% endmacro %}", 1, "`macro`"),
        ("{% call x() %}{% endcall %}", 1, "`call`"),
        ("{% filter upper %}{% endfilter %}", 1, "`filter` block"),
        ("{% include 'a' %}", 1, "`include`"),
        ("{% import 'a' as b %}", 1, "`import`"),
        ("{% from 'a' import b %}", 1, "`from`"),
        ("{% extends 'a' %}", 1, "`extends`"),
        ("{% block b %}{% endblock %}", 1, "`block`"),
        ("{% with %}{% endwith %}", 1, "`with`"),
        ("{% autoescape true %}{% endautoescape %}", 1, "`autoescape`"),
        ("{% do x %}", 1, "unknown tag 'do'"),
        ("{% for a in xs recursive %}{% endfor %}", 1, "recursive"),
        ("{% for a in xs %}\n{% if a %}{% for b in xs %}{% endfor %}{% endif %}{% endfor %}", 2, "inside a loop"),
        ("{% for loop in xs %}{% endfor %}", 1, "plain name"),
        ("{% for a in xs %}{{ loop }}{% endfor %}", 1, "write what you need of the loop"),
        ("{% for a in xs %}{{ loop.cycle }}{% endfor %}", 1, "loop has no 'cycle'"),
        ("{% for a in xs %}{{ loop['index'] }}{% endfor %}", 1, "write what you need of the loop"),
        ("{{ x in xs in xs }}", 1, "chain"),
        ("{{ x", 1, "unexpected end of template"),
        ("a\n{% if x %}", 2, "Unexpected end of template"),
        ("{{ 9" + "9" * 1250 + " }}", 1, "too many digits"),
        ("\n{{ 5|round(-1e999) }}", 2, "too large"),
        ("{{ '\\d' }}", 1, "a backslash in a string is written twice"),
        ("{% if x %}" * 25 + "{% endif %}" * 25, 1, "nested deeper than 20 levels"),
        ("{{ " + "not " * 60 + "x }}", 1, "nested deeper than 50 levels"),
    ],
)
def test_what_is_outside_the_language_is_refused_with_its_line(source: str, line: int, reason: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(source, {"x", "xs"})
    assert reason in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("source", "line", "cause"),
    [
        ("a\n{{ shopper.tier }}", 2, "an object has no key 'tier'"),
        ("\n{{ absent }}", 2, "'absent' has no value"),
        ("{{ absent.deep }}", 1, "'absent' has no value"),
        ("{{ absent | upper }}", 1, "'absent' has no value"),
        ("{{ absent is odd }}", 1, "'absent' has no value"),
        ("{% if absent == 1 %}{% endif %}", 1, "'absent' has no value"),
        ("{% for a in absent %}{% endfor %}", 1, "'absent' has no value"),
        ("{% for a in xs %}\n{{ a.name }}{% endfor %}", 2, "a number has no element 'name'"),
        ("{{ xs[7] }}", 1, "an array has no element 7"),
        ("{{ shopper.items }}", 1, "an object has no key 'items'"),
        ("{{ name.upper }}", 1, "a string has no element 'upper'"),
        ("{{ name['__class__'] }}", 1, "a string has no element '__class__'"),
        ("{{ nothing | length }}", 1, "null has no length"),
        ("{{ nothing.deep }}", 1, "null has no element 'deep'"),
        ("{% for a in nothing %}{% endfor %}", 1, "null has no length"),
        ("{{ xs | first | first }}", 1, "a number has no length"),
        ("{{ [] | first }}", 1, "an array without elements has no first one"),
        ("{{ [1, 'a'] | sort }}", 1, "the elements have no common order"),
        ("{{ xs | sum(start='a') }}", 1, "a string is not a number"),
        ("{{ 5 is divisibleby 0 }}", 1, "it divides by zero"),
        ("{{ name | truncate(1) }}", 1, "truncate needs a length of at least 3, the length of '...'"),
        ("{{ xs < name }}", 1, "'<' not supported between instances of 'list' and 'str'"),
    ],
)
def test_a_failure_names_the_line_and_what_is_missing(source: str, line: int, cause: str) -> None:
    known = {"shopper": {}, "xs": [1], "name": "Ada", "nothing": None}
    with pytest.raises(TemplateFailed) as caught:
        compile_template(source, {*known, "absent"}).render(known)
    assert (caught.value.line, caught.value.cause) == (line, cause)
    assert f"at line {line} (`{source.splitlines()[line - 1].strip()}`)" in str(caught.value)


BIG: dict[str, Any] = {
    "xs": list(range(100_000)),
    "rows": [{"id": index, "text": "x" * 20} for index in range(10_000)],
    "text": "ab " * 300_000,
}


def test_a_long_loop_and_a_long_text_are_refused() -> None:
    with pytest.raises(TemplateFailed, match="a loop may visit at most 10000 elements, and this one has 100000"):
        render("{% for x in xs %}{% endfor %}", xs=BIG["xs"])
    with pytest.raises(TemplateFailed, match="a rendered text may have at most 1048576 characters"):
        render("{% for y in ys %}{{ text }}{% endfor %}", ys=[1, 2], text=BIG["text"])


def test_a_large_prompt_is_fine() -> None:
    document = "word " * 100_000
    text = render("{{ document }}{% for row in rows %}{{ row.id }},{% endfor %}", document=document, rows=BIG["rows"])
    assert len(text) > len(document)


def test_a_template_says_which_names_it_uses_and_pickles_as_its_source() -> None:
    template = compile_template("{% for t in history %}{{ t }}{% endfor %}{{ query }}", {"history", "query", "other"})
    copy = pickle.loads(pickle.dumps(template))
    assert copy == template
    assert template.names == copy.names == {"history", "query"}
    assert copy.render({"history": [1], "query": "?"}) == "1?"


def test_one_rendering_leaves_nothing_behind_for_the_next() -> None:
    template = compile_template("{{ a | default('-') }}{{ xs | sort }}", {"a", "xs"})
    xs = [3, 1]
    assert template.render({"a": 1, "xs": xs}) == "1[1, 3]"
    assert template.render({"xs": xs}) == "-[1, 3]"
    assert xs == [3, 1]


def _jinja(source: str, values: dict[str, Any]) -> str:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    return environment.from_string(source).render(values)


VALUES: dict[str, Any] = {
    "n": 7,
    "f": -2.5,
    "s": "Some  text\nhere",
    "xs": [3, 1, 2],
    "words": ["b", "A", "a"],
    "o": {"k": 4, "t": "x", "inner": {"deep": [1, {"z": None}]}},
    "rows": [{"id": 2, "name": "b"}, {"id": 1, "name": "a"}],
    "none": None,
}
ATOMS = ["n", "f", "s", "xs", "words", "o", "rows", "none", "o.k", "o.inner.deep[1].z", "rows[0]", "rows[-1].name"]
ATOMS += ["o.absent", "xs[9]", "s[2:5]", "xs[::-1]", "words[:n]", "'it''s'", "-3", "true", "[1, 'a']", "{'a': 1}"]
FILTERS = ["length", "default(0)", "default('d', true)", "join", "join('-')", "upper", "lower", "title", "trim"]
FILTERS += ["first", "last", "round", "round(1, 'ceil')", "int", "int(9)", "float", "string", "abs", "sum", "min"]
FILTERS += ["max", "replace('e', '33')", "replace('e', 'x', 1)", "truncate(8)", "truncate(6, true, '…', 0)", "sort"]
FILTERS += ["sort(reverse=true)", "sort(attribute='id')", "sort(case_sensitive=true)", "unique | list", "list"]
FILTERS += ["indent", "indent(2, true)", "wordcount", "reverse | list", "capitalize", "join(',', attribute='id')"]
FILTERS += ["max(attribute='id')", "sum(attribute='id')", "items | list", "count", "d(1)"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence"]
TESTS += ["odd", "even", "divisibleby 3", "iterable", "true", "false"]


def _expressions() -> st.SearchStrategy[str]:
    def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("({} | {})".format, inner, st.sampled_from(FILTERS)),
            st.builds("({} is {})".format, inner, st.sampled_from(TESTS)),
            st.builds("({} {} {})".format, inner, st.sampled_from(["==", "!=", "<", ">=", "in", "not in"]), inner),
            st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
            st.builds("(not {})".format, inner),
            st.builds("({} if {} else {})".format, inner, inner, inner),
        )

    return st.recursive(st.sampled_from(ATOMS), extend, max_leaves=4)


def _templates() -> st.SearchStrategy[str]:
    expression = _expressions()
    loop = ("{%% for a in %s %%}", "{%% for a in %s if a %%}", "{%% for a, b in %s %%}")
    body = "{{ a }}{{ loop.index }}/{{ loop.length }}{{ loop.previtem | default('-') }}"
    return st.one_of(
        st.builds("{{{{ {} }}}}".format, expression),
        st.builds("{{% if {} %}}a{{% elif {} %}}b{{% else %}}c{{% endif %}}".format, expression, expression),
        st.builds(
            lambda head, iterated: head % iterated + body + "{% else %}empty{% endfor %}",
            st.sampled_from(loop),
            expression,
        ),
    )


@settings(max_examples=250, deadline=None)
@given(_templates())
def test_random_templates_agree_with_jinja(source: str) -> None:
    """Whatever Jinja renders, we render the same."""
    template = compile_template(source, VALUES.keys())
    try:
        expected = _jinja(source, VALUES)
    except (JinjaError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        return
    assert template.render(VALUES) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *ATOMS,
                *FILTERS,
                "{{",
                "}}",
                "{%",
                "%}",
                "{#",
                "#}",
                "for",
                "in",
                "if",
                "endfor",
                "endif",
                "else",
                "|",
                ".",
                "(",
                ")",
                "[",
                "]",
                "~",
                "set",
                "raw",
                "\n",
                "\\",
                "'",
            ]
        ),
        max_size=14,
    ).map(" ".join)
)
def test_no_text_does_anything_but_compile_render_or_fail(source: str) -> None:
    try:
        template = compile_template(source, VALUES.keys())
    except TemplateError as exc:
        assert 1 <= exc.line <= source.count("\n") + 1
        return
    try:
        assert isinstance(template.render(VALUES), str)
    except TemplateFailed as exc:
        assert exc.cause
