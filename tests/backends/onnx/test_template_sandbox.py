"""What a hostile template cannot do. Each would otherwise hang, fill the memory or reach Python."""

from __future__ import annotations

import pytest

from backends.errors import BadRequest, CorruptModel
from backends.onnx.chat_template import ChatTemplate

DOUBLING = "{{% set ns = namespace(x={}) %}}{{% for i in range(60) %}}{{% set ns.x = {} %}}{{% endfor %}}{{{{ ns.x }}}}"

REPEATING = (
    "{{% set numbers = range(99999) | list %}}{{% set others = range(99998) | list %}}{{% set text = ' ' * 10 ** 6 %}}"
    "{{% for i in range(99999) %}}{{% set x = {} %}}{{% endfor %}}"
)


def render(source: str) -> str:
    messages = [{"role": "user", "content": "Hello"}]
    return "".join(segment.text for segment in ChatTemplate(source, special_tokens=()).render(messages))


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ (messages | first | attr('__class__')) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '%s' % messages }}",
        "{{ lipsum(n=100000) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_python_and_files_are_out_of_reach(source: str) -> None:
    try:
        text = render(source)
    except BadRequest:
        return
    assert text == ""  # Jinja shows what a template may not see as undefined


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ 9 ** 99999 }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a'.zfill(10 ** 9) }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        DOUBLING.format("'a'", "ns.x + ns.x"),
        DOUBLING.format("'a'", "ns.x ~ ns.x"),
        DOUBLING.format("'aa'", "ns.x | replace('a', ns.x)"),
        DOUBLING.format("'aa'", "ns.x.replace('a', ns.x)"),
        DOUBLING.format("'aa'", "ns.x | join(ns.x)"),
        DOUBLING.format("'aa'", "ns.x.join(ns.x)"),
        DOUBLING.format("'a\\n'", "(ns.x ~ ns.x) | indent(64)"),
        DOUBLING.format("[0]", "ns.x + ns.x"),
        DOUBLING.format("[0]", "[ns.x, ns.x]"),
        DOUBLING.format("(0,)", "(ns.x, ns.x)"),
        DOUBLING.format("{'a': 0}", "{'a': ns.x, 'b': ns.x}"),
        DOUBLING.format("{'a': 0}", "dict(a=ns.x, b=ns.x)"),
        DOUBLING.format("7", "ns.x * ns.x"),
        DOUBLING.format("[0]", "{'a': 0, 'b': [{'c': ns.x}.values(), {'d': ns.x}.values()]}"),
        "{% set ns = namespace(x='a') %}"
        "{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
        REPEATING.format("range(99999) | list"),
        REPEATING.format("range(99999) | sort"),
        REPEATING.format("range(99999) | unique | list | length"),
        REPEATING.format("range(99999) | map('abs') | last"),
        REPEATING.format("range(99999) | select('eq', -1) | list"),
        REPEATING.format("range(99999) | max"),
        REPEATING.format("range(99999) | join | length"),
        REPEATING.format("numbers | tojson"),
        REPEATING.format("numbers | string"),
        REPEATING.format("numbers[1:]"),
        REPEATING.format("numbers == others"),
        REPEATING.format("-1 in numbers"),
        REPEATING.format("numbers is eq(others)"),
        REPEATING.format("numbers.count(-1)"),
        REPEATING.format("[text] | sort"),
        REPEATING.format("text | upper"),
        REPEATING.format("text | trim"),
        REPEATING.format("text.upper()"),
        REPEATING.format("text.strip()"),
        REPEATING.format("text.count('b')"),
        REPEATING.format("'b' in text"),
        REPEATING.format("text[1:]"),
        REPEATING.format("[''] * 99999 | join"),
        REPEATING.format("''.join([''] * 99999)"),
        "{% for i in range(99999) %}{% for j in range(4) %}{% set x %}"
        + "a" * 1000
        + "{% endset %}{% endfor %}{% endfor %}",
        "{{ 1 | round(10 ** 9, 'ceil') }}",
        "{{ ('f' * 10 ** 6) | int(0, 16) }}",
        "{% set ns = namespace(x=[0] * 1000) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x | tojson(indent=64) }}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    ],
)
def test_work_and_memory_are_bounded(source: str) -> None:
    with pytest.raises((BadRequest, CorruptModel), match="template"):
        render(source)


def test_the_text_of_a_namespace_does_not_double() -> None:
    assert render(DOUBLING.format("'a'", "namespace(a=ns.x, b=ns.x)")) == "<Namespace>"


def test_a_long_conversation_is_within_the_bounds() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% set text = m.content | trim %}{{ m.role ~ ': ' ~ text }}\n{% endfor %}",
        special_tokens=("<|stop|>",),
    )
    messages = [{"role": "user", "content": "word " * 20}] * 10_000
    assert sum(len(segment.text) for segment in template.render(messages)) > 10_000 * 100


def test_a_template_cannot_redefine_the_bounds() -> None:
    source = (
        "{% set bounded_loop = range %}{% macro bounded_text(x) %}{% endmacro %}"
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(BadRequest, match="steps"):
        render(source)


def test_the_allowed_filters_and_methods_work_as_in_jinja() -> None:
    source = (
        "{{ messages[0].content | upper }} {{ ['a', 'b'] | join('-') }} {{ 'a-b'.split('-') | last }} "
        "{{ ', '.join(['x', 'y']) }} {{ 'aXb' | replace('X', '+') }} {{ 'aXb'.replace('X', '*') }} "
        "{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | list }} {{ [{'n': 1}] | join('', attribute='n') }} "
        "{{ 'a\nb' | indent(2) }} {{ {'b': [1, none, true]} | tojson }} {{ 1 + 2 }} {{ 2 ** 10 }} {{ 7 % 4 }}"
    )
    assert render(source) == 'HELLO a-b b x, y a+b a*b [1, 2] 1 a\n  b {"b": [1, null, true]} 3 1024 3'
