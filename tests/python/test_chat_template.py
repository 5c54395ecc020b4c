"""Chat templates beside Jinja2 itself, set up as transformers sets it up: the same text, or an error from both."""

import json
import os
import pathlib
import random
import subprocess

import pytest

jinja2 = pytest.importorskip("jinja2")
from jinja2.ext import loopcontrols  # noqa: E402
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(os.environ.get("RENDER_TEMPLATE", ROOT / "build" / "release" / "render_template"))

CONTEXT = {
    "n": 7, "m": -3, "f": 2.5, "big": 1e22, "tiny": 1e-7, "t": True, "none_": None, "empty": "", "name": "Ünïcode ß 中文 😀",
    "s": "  Hello, World!\n second line \t", "words": ["pear", "Apple", "fig", "apple", "Banana"], "nums": [3, 1, 2, 10, -4],
    "mixed": [1, "a", None, True, 2.0, [1, 2], {"k": "v"}], "nested": {"a": {"b": [10, 20, {"c": "deep"}]}, "items": 5, "z": "it's \"q\""},
    "people": [{"name": "Bo", "age": 30, "tags": ["x"]}, {"name": "al", "age": 25, "tags": []}, {"name": "Cy", "age": 30}],
    "html": "<a href='x'>&\"</a>", "huge": 18446744073709551615, "lines": "one\n\n  two\r\nthree\n", "pairs": [["a", 1], ["b", 2]],
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 2+2?\n"},
    {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"},
    {"role": "user", "content": "写一首诗 <b>"},
]
TOOLS = [{"type": "function", "function": {"name": "find", "description": "Finds \"it\"\täß", "parameters": {
    "type": "object", "properties": {"q": {"type": "string"}, "n": {"type": "integer", "default": 1.0, "maximum": 1e21}}, "required": ["q"]}}}]

EXPRESSIONS = """
1 + 2 * 3 - 4 / 2|7 // 2|-7 // 2|7 % 3|-7 % 3|7.5 // 2|-7.5 % 2|2 ** 10|2 ** -1|-2 ** 2|2 ** 3 ** 2|1 / 3|n / 0|"a" * 3|3 * [1, 2]|[1] + [2]
(1, 2) + (3,)|"a" + 1|"a" ~ 1 ~ none ~ true ~ 2.0|1 < 2 < 3|1 < 3 < 2|1 == 1.0|true == 1|"a" < "b"|[1, 2] < [1, 3]|"a" < 1|none == false
not 1 == 2|not (t and n)|n or 5|empty or "x"|empty and "x"|none_ or empty or "last"|1 if t|1 if not t|1 if not t else 2|(1 if t else 2) + 1
3 in nums|"3" in nums|"ell" in s|"k" in nested|"a" not in nested|1 in "a"|5 in undefined_one|n is odd|n is even|n is divisibleby 7|n is divisibleby(2)
n is number|f is number|t is number|n is integer|t is integer|f is float|t is boolean|t is true|t is false|s is string|nested is mapping
words is sequence|words is iterable|s is iterable|n is iterable|nested is sequence|missing is defined|missing is undefined|missing is not defined
none_ is none|none_ is not none|missing is none|"abc" is lower|"ABC" is upper|"a1" is lower|"1" is upper|n is eq 7|n is equalto(7)|n is ne 7
n is gt 3|n is lt(3)|n is ge 7|n is le 6|n is in nums|1 is in nums|1 is in [1, 2]|n is sameas 7|range is callable|n is callable|not n is odd
missing|missing.attr|missing[0]|missing()|missing ~ "x"|missing + 1|missing == missing2|missing | length|missing | list|-missing|missing < 1|missing | upper
none_.attr is defined|none_.attr|nested.a.b[2].c|nested["a"]["b"][0]|nested.a.b.1|nested.a.b[-1]|nested.a.b[5] is defined|nested.nope is defined|nested.items is callable
nested["items"]|nested.z|nested["keys"] is defined|words[0]|words[-1]|words[1:3]|words[::-1]|words[-2:]|words[:-2]|words[::2]|words[5:1:-1]|words[10:]|s[2:7]|s[::-1]
name[0]|name[-1]|name[8:11]|name[::-2]|name | length|name.upper()|name.lower()|s.title()|name.capitalize()|s.swapcase()|words[1.5] is defined|words["0"] is defined
nums[::0]|s.strip()|s.lstrip()|s.rstrip()|"xxhixx".strip("x")|"xyhiyx".lstrip("xy")|s.split()|s.split(",")|"a,b,,c".split(",")|"a,b,c".split(",", 1)
"a b  c".split(none, 1)|"a b  c ".rsplit(none, 1)|"a,b,c".rsplit(",", 1)|"a".split("")|lines.splitlines()|lines.splitlines(true)|s.startswith("  H")|s.endswith(("x", "\\t"))
s.startswith(("a", "b"))|"abc".startswith("b", 1)|"abc".find("c")|"abc".find("z")|name.find("中")|"abab".rfind("b")|"abc".index("z")|"aaa".count("a")|"aXbX".replace("X", "--")|"aXbX".replace("X", "-", 1)
"abc".replace("", "-")|"-".join(["a", "b"])|"-".join([1])|"12".isdigit()|"1a".isdigit()|"ab".isalpha()|"a1".isalnum()|" ".isspace()|"Ab".isupper()|"ab".islower()
"a-b".partition("-")|"a-b-c".rpartition("-")|"abc".removeprefix("a")|"abc".removesuffix("c")|"{} {}".format(1, "b")|"{1} {0}".format("a", "b")|"{x}".format(x=2)|"{{}}".format()|"{}".format()
"%s-%d" % ("a", 3)|"%s" % "x"|"%.2f" % 3.14159|"%s %s" % ("a",)|"%s|%r" | format("a", "b")|words.append("x")|nested.pop("a")|nested.update({})|words.index("fig")|words.count("fig")
nested.get("a")|nested.get("nope")|nested.get("nope", 3)|nested.keys() | list|nested.values() | list | length|nested.items() | list | first|nested.copy() == nested|words.__class__|s.__len__()
s | trim|"xax" | trim("x")|s | upper|s | lower|"hello wORLD-foo (bar)" | title|"it's" | title|"it's".title()|"hELLO" | capitalize|words | join|words | join(", ")|people | join(", ", attribute="name")
nums | sort|nums | sort(reverse=true)|words | sort|words | sort(case_sensitive=true)|people | sort(attribute="age") | map(attribute="name") | list|people | sort(attribute="age,name") | map(attribute="name") | list
words | unique | list|words | unique(case_sensitive=true) | list|nums | sum|people | sum(attribute="age")|nums | max|nums | min|words | min|words | max(case_sensitive=true)|[] | max is defined|[] | first is defined
nums | first|nums | last|words | reverse | list|s | reverse|words | length|nested | length|n | length|nested | dictsort|{"b": 1, "A": 2} | dictsort|{"b": 1, "A": 2} | dictsort(case_sensitive=true)|{"b": 1, "A": 2} | dictsort(by="value", reverse=true)
people | map(attribute="name") | join(",")|people | map(attribute="tags", default=[]) | list|people | map(attribute="tags.0") | map("default", "-") | list|words | map("upper") | list|words | map("replace", "a", "4") | list|words | map("nope") | list
nums | select("odd") | list|nums | reject("odd") | list|nums | select("gt", 2) | list|mixed | select | list|people | selectattr("tags") | map(attribute="name") | list|people | selectattr("age", "eq", 30) | list | length
people | rejectattr("age", "equalto", 30) | map(attribute="name") | list|people | selectattr("tags", "defined") | list | length|nums | select("nope") | list|missing | default("d")|missing | d|empty | default("d")|empty | default("d", true)
none_ | default("d")|missing.x | default("d")|n | string|nested | string|"12" | int|" 12 " | int|"1_000" | int|"12.7" | int|"x" | int|"x" | int(5)|"ff" | int(base=16)|"0xff" | int(0, 16)|f | int|none_ | int|"3.5" | float|"x" | float|"x" | float(1.5)|t | int|"inf" | float|"nan" | float
-3 | abs|m | abs|f | abs|2.5 | round|3.5 | round|2.675 | round(2)|42 | round|42.4 | round(0, "ceil")|42.6 | round(method="floor")|-2.5 | round|1234.5678 | round(1)|html | e|html | escape|html | safe|html | urlencode|"a b/c?ä" | urlencode
lines | indent|lines | indent(2, true)|lines | indent(2, blank=true)|lines | indent("> ")|"" | indent|"a" | indent(3, true)|"one two, three" | wordcount|name | wordcount|[1, 2] | list|s | list | length|nested | list|(1, 2) | list
mixed | tojson|nested | tojson|name | tojson|html | tojson|lines | tojson|"\\x01\\x7f\\u2028" | tojson|name | tojson(ensure_ascii=true)|nested | tojson(indent=2)|[] | tojson(indent=2)|{} | tojson|nested | tojson(sort_keys=true)|mixed | tojson(separators=(",", ":"))
big | tojson|tiny | tojson|huge | tojson|huge + 1|f | tojson|1.0 | tojson|(1, 2) | tojson|missing | tojson|{1: 2, none: 3, true: 4, 1.5: 5} | tojson|[1e400] | length|big|tiny|1e16|123456789012345680.0|0.1 + 0.2|1e15|100000.0|-0.0|1.5e300 * 1e10
mixed|nested|(1,)|()|[]|{}|{"a": "it's"}|["\\n", "\\t\\\\", "'", '"', "'\\""]|["\\u200b", "\\xa0", "é", "\\u3000", "😀"]|[missing]|[none, true, false]|(1, "a")|{(1, 2): 3}|{"a": 1, "a": 2}|{[1]: 2}
range(3)|list|range(3) | list|range(1, 10, 3) | list|range(5, 0, -2) | list|range(0) | list|range(1, 2, 0)|range(1000000)|dict(a=1, b="x")|dict({"a": 1}, b=2)|dict([["a", 1]])|namespace(a=1).a|namespace().a is defined
"a" "b"|'it''s'|"\\x41\\u00e9\\n"|"\\q"|0x1f|0b11|0o17|1_000|1e3|1.5E-3|none|None|True|False|[1, 2,]|(1, 2,)|{"a": 1,}|(n)|((1))|-n|+n|- - n|--n|not not n
raise_exception("no")|joiner is defined|joiner(", ") is callable|n is nope|n | nope|loop is defined|1 is 1|n is odd is even|"x" if n > 5 else "y" if n > 3 else "z"|[1, 2, 3][1]|{"a": [1]}.a[0]|"abc"[1]|(1, 2)[0]
t + t|t * 3|true + 1.5|true is sameas true|1 is sameas true|"1" == 1|[1, 2] == (1, 2)|{"a": 1} == {"a": 1.0}|none < 1|words + nums|words + "a"|"a" in ["a"]|("a", 1) in [("a", 1)]|n not in nums|not n in nums
words | first | upper|words | map("first") | join|words | join(",") | upper | length|nums | map("string") | join("+")|nested | items | list | length|missing | items | list|n | items | list|nested.a | items | list|people[0] | items | list
""".strip()

TEMPLATES = [
    "a\n{% if t %}\n  b\n{% endif %}\nc\n", "a\n  {% if t %}  \n  b\n  {% endif %}\nc\n\n", "a  {%- if t -%}  b  {%- endif -%}  c", "x {{- n -}} y", "x\n  {{ n }}\n  y",
    "  {%+ if t %}a{% endif %}", "{% if t +%}\n a{% endif %}", "{# c #}\nx{#- y -#}  z\n   {# only #}\nend", "a{#\nmany\nlines\n#}\nb", "{% raw %}{{ no }}{% x %}{% endraw %}\nx",
    "  {%- raw -%}  {{ a }}  {%- endraw -%}  y", "a\r\nb\rc\n", "\n\nx\n\n\n", "{{ '{{' }} }} %} {", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}.a.b }}",
    "{% for x in nums %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}", "{% for x in [] %}x{% else %}none{% endfor %}",
    "{% for x in nums if x > 1 %}{{ loop.index0 }}{{ x }}{{ loop.revindex }}{{ loop.revindex0 }}{% else %}no{% endfor %}", "{% for x in nums if x > 100 %}{{ x }}{% else %}no{% endfor %}",
    "{% for k, v in nested.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in nested %}{{ k }}{% endfor %}", "{% for c in 'añ中' %}[{{ c }}]{% endfor %}", "{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %}",
    "{% for (a, b) in pairs %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in nums %}{% endfor %}", "{% for x in n %}{% endfor %}", "{% for x in missing %}x{% else %}e{% endfor %}",
    "{% for x in nums %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 10 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in nums %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in nums %}{{ loop.cycle('a', 'b') }}{{ loop.first }}{{ loop.last }}{% endfor %}", "{% for x in nums %}{% for y in words %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% set x = 1 %}{% for i in nums %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "{% for i in nums %}{% set y = i %}{% endfor %}{{ y is defined }}", "{% if t %}{% set q = 5 %}{% endif %}{{ q }}",
    "{% set ns = namespace(a=0) %}{% for i in nums %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "{% set n.a = 1 %}", "{% set nested.a = 1 %}", "{% set ns = namespace(d={}) %}{% set ns.b = 1 %}{{ ns.b }}{{ ns.c is defined }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set x %} body {{ n }} {% endset %}[{{ x }}]", "{% set x | upper | trim %} body {% endset %}[{{ x }}]", "{% set a = 1, 2 %}{{ a }}",
    "{% if n > 10 %}a{% elif n > 5 %}b{% else %}c{% endif %}", "{% if missing %}a{% else %}b{% endif %}", "{% if not missing and (t or none_) %}a{% endif %}", "{% if n == 7 %}{% if t %}x{% else %}y{% endif %}{% endif %}",
    "{% macro f(a, b=2, c=b) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ f(1) }}|{{ f(1, 3) }}|{{ f(a=1, c=9) }}|{{ f() }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, zz=2) }}",
    "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, k=4) }}", "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro f() %}{{ caller() }}!{% endmacro %}{% call f() %}body{% endcall %}",
    "{% macro f(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) f(nums) %}<{{ v }}>{% endcall %}", "{% macro f() %}{{ g }}{% endmacro %}{% set g = 3 %}{{ f() }}", "{% macro f() %}\n  x\n{% endmacro %}\n[{{ f() }}]{{ f.name }}",
    "{% filter upper %}abc {{ name }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}banana{% endfilter %}", "{% with x = 3, y = n %}{{ x }}{{ y }}{% endwith %}{{ x is defined }}", "{% generation %}{{ n }}{% endgeneration %}",
    "{% set j = joiner(', ') %}{% for x in nums %}{{ j() }}{{ x }}{% endfor %}", "{{ dict(**nested).z }}", "{{ range(*[1, 4]) | list }}", "{% for x in nums | sort %}{{ x }}{% endfor %}", "{% for x in nums[1:3] %}{{ x }}{% endfor %}", "{{ strftime_now('%%') }}",
    "{% endif %}", "{% if t %}", "{% for x in %}{% endfor %}", "{{ }}", "{{ 1 + }}", "{{ (1 }}", "{{ 'a }}", "{% unknown %}", "{{ a b }}", "{{ 1 | }}", "{% set 1 = 2 %}", "{% set none = 2 %}", "{% break %}", "{{ @ }}", "{{ f(a=1, 2) }}", "{% for x in nums %}", "{# open", "{% raw %}x",
    "{% macro f(a=1, b) %}{% endmacro %}", "{% if %}x{% endif %}", "{{ [1, 2 }}", "{{ {1} }}", "{{ x. }}", "{{ x.1.y is defined }}", "{{ n if }}", "{{ 1 }", "{{ 1 %}", "{% if t }}", "plain", "", "\n", "{{ n }}\n", " {% if t %} x {% endif %} ",
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m['content'] | trim }}{% if not loop.last %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 1) %}{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ system }}{% for m in rest %}[{{ m.role }}] {{ m.content }}\n{% endfor %}",
    "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ m.role }}: {{ c }}{{ eos_token }}{% endfor %}",
    "{% set ns = namespace(last=-1) %}{% for m in messages[::-1] %}{% set i = (messages | length - 1) - loop.index0 %}{% if ns.last < 0 and m.role == 'user' %}{% set ns.last = i %}{% endif %}{% endfor %}{{ ns.last }}",
    "{% if tools %}# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{{ tool.function.parameters | tojson(indent=4) }}\n{% for k, v in tool.function.parameters.properties.items() %}{{ k }}: {{ v.type }}{{ ' (required)' if k in tool.function.parameters.required }}\n{% endfor %}{% endfor %}{% endif %}",
    "{%- for tool in tools %}\n  {{- '\\n' ~ tool.function.name }}\n  {%- if tool.function.description is defined %} // {{ tool.function.description }}{% endif %}\n{%- endfor %}",
    "{% for m in messages %}\n{%- if m.role == 'user' %}\n{{- 'U:' + m.content }}\n{%- elif m.role == 'assistant' and not m.tool_calls %}\n{{- 'A:' + m.content }}\n{%- else %}\n{{- 'S:' ~ m.content }}\n{%- endif %}\n{%- endfor %}\n",
]


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: form.replace("%%", "%")
    return made


ENVIRONMENT = environment()


def expected(template, variables):
    try:
        text = ENVIRONMENT.from_string(template).render(**variables)
    except Exception as error:  # whatever Python raises inside a template
        return None, repr(error)
    text.encode()
    return text, ""


def rendered(templates):
    """(text or None, error) of each template, with the shared context."""
    common = dict(messages=MESSAGES, tools=TOOLS, extra=CONTEXT, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
    jobs = json.dumps({"jobs": [dict(common, template=t) for t in templates]})
    done = subprocess.run([PROGRAM], input=jobs.encode(), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.decode().split("\n") if line]
    return [(a.get("text"), a.get("error", "")) for a in answers]


def compare(templates):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    variables = dict(CONTEXT, messages=MESSAGES, tools=TOOLS, documents=None, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
    wrong = []
    for template, (text, error) in zip(templates, rendered(templates), strict=True):
        wanted, reason = expected(template, variables)
        if wanted != text:
            wrong.append(f"template {template!r}\n  Jinja2 {wanted!r} {reason}\n  hadal  {text!r} {error}")
    assert not wrong, f"{len(wrong)} of {len(templates)} differ:\n" + "\n".join(wrong[:40])


def listed_expressions():
    # "|" parts the list, " | " is a filter.
    marked = EXPRESSIONS.replace(" | ", "\0")
    return [e.replace("\0", " | ") for line in marked.splitlines() for e in line.split("|") if e]


def test_expressions():
    compare([f"{{{{ {e} }}}}" for e in listed_expressions() if not e.startswith("range(3)") or "list" in e])


def test_templates():
    compare(TEMPLATES)


def random_template(draw):
    """Text and tags with random white space control around a few real constructs."""
    def tag(body, kind):
        left, right = ("{%", "%}") if kind == "block" else ("{{", "}}") if kind == "print" else ("{#", "#}")
        return left + draw.choice(["", "", "-", "+" if kind == "block" else ""]) + f" {body} " + draw.choice(["", "", "-", "+" if kind == "block" else ""]) + right

    def text():
        return "".join(draw.choice(["a", " ", "\n", "  ", "\t", "b\n", "é", "{", "\n\n"]) for _ in range(draw.randrange(5)))

    def value(depth=0):
        if depth > 2 or draw.random() < 0.4:
            return draw.choice(["n", "f", "s", "words", "nums", "nested", "t", "none_", "missing", "'x'", "3", "2.5", "[1, 'a']", "name", "people", "-1", "''"])
        left, right = value(depth + 1), value(depth + 1)
        return draw.choice([
            f"({left} {draw.choice(['+', '-', '*', '/', '//', '==', '!=', '<', '>=', 'and', 'or', '~', 'in', 'not in'])} {right})",
            f"({left} if {right} else {value(depth + 1)})", f"(not {left})", f"({left})[{right}]",
            f"{draw.choice(['s', 'words', 'nums', 'name', 'people'])}[{draw.randrange(-3, 3)}:{draw.randrange(-3, 3)}]",
            f"({left} | {draw.choice(['upper', 'trim', 'length', 'first', 'last', 'join', 'string', 'tojson', 'list', 'int', 'float', 'abs', 'sort', 'sum', 'title', 'default(1)', 'round', 'replace(1, 2)', 'capitalize', 'wordcount', 'max'])})",
            f"({left} is {draw.choice(['defined', 'none', 'string', 'mapping', 'number', 'iterable', 'sequence', 'odd', 'true', 'boolean', 'eq 3', 'in nums', 'lower'])})",
            f"[{left}, {right}]", f"({left}, {right})", f"{{'k': {left}}}",
        ])

    def body(depth):
        out = text()
        for _ in range(draw.randrange(1, 4)):
            kind = draw.randrange(8) if depth < 3 else draw.randrange(3)
            if kind <= 1:
                out += tag(value(), "print")
            elif kind == 2:
                out += tag(" note ", "comment")
            elif kind <= 4:
                out += tag(f"if {value()}", "block") + body(depth + 1) + (tag("else", "block") + body(depth + 1) if draw.random() < 0.5 else "") + tag("endif", "block")
            elif kind == 5:
                out += tag(f"for x in {draw.choice(['nums', 'words', 'nested', 's', 'range(3)', '[]', 'people'])}", "block") + body(depth + 1) + tag("x", "print") + tag("loop.index", "print") + tag("endfor", "block")
            elif kind == 6:
                out += tag(f"set v = {value()}", "block") + tag("v", "print")
            else:
                out += tag("set w", "block") + body(depth + 1) + tag("endset", "block") + tag("w", "print")
            out += text()
        return out

    return body(0)


@pytest.mark.parametrize("seed", range(4))
def test_random_templates(seed):
    draw = random.Random(seed)
    compare([random_template(draw) for _ in range(int(os.environ.get("TEMPLATES", "500")))])
