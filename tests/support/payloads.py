"""Hostile inputs, by the door they come through; tests/security holds them against it, the fuzzer starts from them.

Templates and expressions meet the values in BIG.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from support.broken_flows import GOOD


def nested(levels: int, value: Any = 1) -> Any:
    """`value` inside that many arrays."""
    for _ in range(levels):
        value = [value]
    return value


BIG: dict[str, Any] = {
    "xs": list(range(100_000)),
    "ys": list(range(10_000)),
    "rows": [{"id": index, "text": "x" * 20} for index in range(20_000)],
    "text": "ab " * 333_333,
    "huge": 10**4000,
    "deep": nested(5_000),
}

# Sandbox escapes that were published for Jinja and for products that render prompts with it.
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ x.__class__.__base__ }}",
    "{{ x['__class__'] }}",
    "{{ x[('__cla' , 'ss__') | join] }}",
    "{{ xs | attr('append') }}",
    "{{ x | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ 'a{0.__class__}' | format(x) }}",
    "{{ 'a{0.__class__}'.format(x) }}",
    "{{ ('a{0.__class__}' | replace('a', '')).format(x) }}",
    "{{ x.format_map }}",
    "{{ x['format'] }}",
    "{{ [x] | map('attr', 'format') | list }}",
    "{{ xs.append }}",
    "{{ xs | sort(attribute='__class__') }}",
    "{{ xs | sum(attribute='__class__') }}",
    "{{ xs | join(attribute='__class__.__mro__') }}",
    "{{ xs | unique(attribute='append') }}",
    "{{ xs | max(attribute='__doc__') }}",
    "{{ namespace() }}",
    "{{ dict(a=1) }}",
    "{{ joiner }}",
    "{{ config }}",
    "{{ request.application }}",
    "{% for c in x.__class__ %}{% endfor %}",
    "{% for a in xs %}{{ loop.__init__ }}{% endfor %}",
    "{% for a in xs %}{{ loop._iterator }}{% endfor %}",
    "{% for a in xs %}{{ loop['_iterator'] }}{% endfor %}",
    "{% for a in xs %}{{ loop | attr('_iterator') }}{% endfor %}",
    "{% import 'os' as os %}{{ os }}",
    "{% include '/etc/passwd' %}",
    "{{ ().__class__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{{ environment }}",
    "{{ context.environment }}",
    "{{ meter }}",
    "{{ x | pprint }}",
    "{{ x | xmlattr }}",
    "{{ x | string | attr('__class__') }}",
]

_LOOP = "{% for y in ys %}"
TEMPLATES = [
    "{{ 10**(10**8) }}",
    "{{ 'a' * 1000000000 }}",
    "{{ '%2000000000d' | format(1) }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ '%2000000000d' is odd }}",
    "{{ '%2000000000d' is divisibleby 3 }}",
    "{{ 'a'.ljust(3000000000) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ range(1000000000) }}",
    "{{ text | indent(1000000000) }}",
    "{{ ('\n' * 9) | indent(64) }}",
    "{{ text | replace('', text) }}",
    "{{ text | replace('a', text) }}",
    "{{ xs | join(text) }}",
    "{{ xs | join | replace('1', text[:1000]) }}",
    "{{ 5 | round(-1000000000) }}",
    "{{ 5 | round(1000000000) }}",
    "{{ 5.5 | round(1000000000, 'floor') }}",
    "{{ '9' | int(base=1000000000) }}",
    "{{ ('9' | replace('9', text)) | int }}",
    "{{ rows | tojson(indent=1000000000) }}",
    "{{ deep | tojson(indent=60) }}",
    "{{ deep }}",
    "{{ deep == [[]] }}",
    "{{ deep | string | length }}",
    "{{ xs | sum(start=[]) }}",
    "{{ text | list | sort | join }}",
    "{{ rows | sort(attribute='text,id,text,id,text,id,text,id,text,id,text,id,text') }}",
    "{{ huge }}{{ huge | string }}",
    "{% for a in text %}{% endfor %}",
    "{% for a in xs %}{% endfor %}",
    _LOOP + "{{ text }}{% endfor %}",
    _LOOP + "{{ xs | sort | length }}{% endfor %}",
    _LOOP + "{{ xs[1:] | length }}{% endfor %}",
    _LOOP + "{% if xs[1:] %}{% endif %}{% endfor %}",
    _LOOP + "{% if xs == ys %}{% endif %}{% endfor %}",
    _LOOP + "{% if rows == rows[:] %}{% endif %}{% endfor %}",
    _LOOP + "{% if -1 in xs %}{% endif %}{% endfor %}",
    _LOOP + "{% if xs not in rows %}{% endif %}{% endfor %}",
    _LOOP + "{% if 'zz' in text %}{% endif %}{% endfor %}",
    _LOOP + "{{ text | upper | length }}{% endfor %}",
    _LOOP + "{{ text | wordcount }}{% endfor %}",
    _LOOP + "{{ text | trim | title | length }}{% endfor %}",
    _LOOP + "{{ rows | tojson | length }}{% endfor %}",
    _LOOP + "{{ xs | max }}{{ xs | min }}{{ xs | sum }}{% endfor %}",
    _LOOP + "{% if y %}{% endif %}" * 400 + "{% endfor %}",
    (_LOOP + "{% endfor %}") * 250,
    _LOOP * 3 + "{% endfor %}" * 3,
    "{% if xs %}" * 2_000 + "{% endif %}" * 2_000,
    "{{ " + "(" * 30_000 + " }}",
    "{{ " + "[" * 30_000 + " }}",
    "{{ " + "not " * 15_000 + "xs }}",
    "{{ " + "-" * 60_000 + "1 }}",
    "{{ xs" + ".a" * 30_000 + " }}",
    "{{ xs" + " | list" * 9_000 + " }}",
    "{{ " + "xs and " * 9_000 + "xs }}",
    "{{ [" + "1," * 30_000 + "] }}",
    "{{ " + "9" * 60_000 + " }}",
    "{{ 1." + "9" * 60_000 + " }}",
    "{{ '" + "\\\\" * 30_000 + "' }}",
    "{{ xs }}" * 8_000,
    "{{" * 30_000,
    "{%" * 30_000,
    "{#" * 30_000,
    "{% raw %}" * 7_000,
    "{" * 65_000,
    " " * 60_000 + "{%- if",
    "{{ " + " " * 60_000,
    "a" * 10_000_000,
]

EXPRESSIONS = [
    "'a' * 1000000000",
    "'a' * 1000000 * 1000000",
    "[0] * 1000000000",
    "text * 1000000",
    "[text] * 100000",
    "str([text] * 1000)",
    "[[[[0] * 1000] * 1000] * 1000] * 1000",
    "str([[[0] * 1000] * 1000] * 1000)",
    "[[[0] * 1000] * 1000] * 1000 == [[[0] * 1000] * 1000] * 1000",
    "[[[1] * 999] * 999] * 999 in [[[[1] * 999] * 999] * 999, [[[2] * 999] * 999] * 999]",
    "max([[[0] * 1000] * 1000] * 1000, [[[0] * 1000] * 1000] * 1000)",
    "{((((1,) * 1000,) * 1000,) * 1000): 1}",
    "((((1,) * 1000,) * 1000,) * 1000) in {}",
    "{}[(((1,) * 1000,) * 1000,) * 1000]",
    "huge * huge",
    "huge * huge * huge * huge",
    "1" + " * 999999999999999999" * 90,
    "9" * 1200 + " * 9" + "9" * 700,
    "int('9' * 1000000)",
    "float('9' * 1000000)",
    "str(huge)",
    "'%2000000000d' % 1",
    "str(deep)",
    "deep == [deep]",
    "[deep]",
    " or ".join(["xs == rows"] * 100),
    " or ".join(["rows == rows[1:]"] * 40),
    " and ".join(["'b' not in text"] * 80),
    " and ".join(["-1 not in xs"] * 90),
    " + ".join(["text"] * 45),
    " and ".join(["text[1:]"] * 150),
    " and ".join(["xs[1:]"] * 150),
    "not " * 490 + "xs",
    "-" * 1990 + "1",
    "(" * 1000 + ")" * 1000,
    "[" * 999,
    "((" * 90 + "1 2" + "))" * 90,
    "{1:" * 600,
    "xs" + "[0]" * 600,
    "abs(" * 300 + "1" + ")" * 300,
    "lambda:" * 280 + "1",
    "[x for x in " * 80,
    "f'{" * 100,
    "1 if xs else " * 150 + "1",
    "a" * 1_000_000,
    "(" * 1_000_000,
    "'" + "\\" * 1_990 + "'",
    "'" * 1_999,
    "\\'" * 995,
    "1_" * 990 + "1",
    ".".join("1" * 990),
]

PLACEHOLDERS: list[Any] = [
    "a ${x}",
    "${text}" * 1_000,
    ["-${rows}"] * 100,
    "-${huge}",
    "${" * 20_000,
    "${x" + ".a" * 20_000 + "}",
    "${x." + "9" * 10_000 + "}",
    "$" * 99_999,
    nested(100_000),
]

FILES: dict[str, str] = {
    "alias bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghi")),
    "alias to itself": "a: &a [*a]",
    "flow brackets": "[" * 20_000,
    "flow braces": "{a: " * 20_000,
    "block sequences": "- " * 20_000,
    "complex keys": "? " * 20_000,
    "json levels": '{"a":' * 100_000,
    "nested flow": GOOD.replace('{text: "${reply.text}"}', "[" * 1_000 + "]" * 1_000),
    "reference loop": GOOD.replace("name: result,", "name: result, schema: {$ref: '#'},"),
    "custom tag": "!!python/object/apply:os.system [echo]",
    "duplicate keys": "a: 1\n" * 200_000,
    "anchors": "- &a x\n" * 100_000,
    "long number": f"a: {'9' * 1_000_000}",
    "long line": "a: " + "x" * 2_000_000,
}
FILES |= {
    "nested json": "[" * 100_000 + "]" * 100_000,
    "merge key": "a: {<<: {b: 1}}\n" * 2,
    "many documents": "--- 1\n" * 100_000,
    "directives": "%YAML 1.1\n" * 50_000,
    "binary": "a: !!binary " + "A" * 900_000,
    "unclosed quote": 'a: "' + "\\" * 900_000,
    "comment": "# " + "x" * 1_040_000,
}


def _nested(keyword: str, levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {keyword: schema}
    return schema


def _chain(length: int, times: int) -> dict[str, Any]:
    links = {f"d{index}": {"allOf": [{"$ref": f"#/definitions/d{index + 1}"}] * times} for index in range(length)}
    return {"$ref": "#/definitions/d0", "definitions": {**links, f"d{length}": {}}}


TWICE_PER_LEVEL = {"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}
ALIASED: Any = []
for _ in range(60):
    ALIASED = [ALIASED, ALIASED]

PATTERNS: list[tuple[Any, Any]] = [
    ({"pattern": "^(a+)+$"}, "a" * 31 + "!"),
    ({"pattern": "^(a|a)*$"}, "a" * 5_000 + "!"),
    ({"pattern": "^(.*a){9}$"}, "a" * 50_000),
    ({"pattern": "(x+x+)+y"}, "x" * 50_000),
    ({"pattern": "(.{0,100}){0,10}x"}, "a" * 1_000_000),
    ({"pattern": "(.{0,100}){0,10}x"}, "a" * 900),
    ({"patternProperties": {"^(a+)+$": True}}, {"a" * 31 + "!": 1}),
    ({"pattern": "((a{99}){99}){99}"}, "a"),
    ({"pattern": r"(\pL{0,99}){0,99}"}, "a"),
    ({"pattern": r"[\pL\pN]{2000}"}, "a"),
    ({"pattern": "(" * 250 + ")" * 250}, "a"),
    ({"pattern": "a{1" + "0" * 400 + "}"}, "a"),
]

SCHEMAS: list[tuple[Any, Any]] = [
    (_nested("not", 100_000), 1),
    (_nested("items", 60), nested(60)),
    (_chain(25, 2), 1),
    (_chain(3_000, 1), 1),
    (_chain(60, 1), 1),
    (TWICE_PER_LEVEL, nested(40)),
    ({"items": {"$ref": "#"}}, nested(5_000)),
    ({"const": 1}, nested(5_000)),
    ({"enum": [1]}, ALIASED),
    ({"uniqueItems": True}, [{"id": index} for index in range(10_000)]),
    ({"uniqueItems": True}, [ALIASED]),
    ({"default": ALIASED}, 1),
    ({"enum": list(range(20_000))}, 1),
    ({"allOf": [{"items": {"type": "number"}}] * 2_000}, list(range(5_000))),
    ({"required": [str(index) for index in range(9_000)]}, {}),
    ({"multipleOf": 1e-300}, 1e300),
    ({"multipleOf": 3}, 10**1_000),
]
