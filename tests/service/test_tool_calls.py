"""Calls in what models write: told from text, whole or in pieces, and held to a form."""

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from model_core.tokenization import Tokenizer
from service.engines.constraint import Schemas
from service.errors import InvalidRequest
from service.tool_calls import (
    FORMATS,
    NO_ARGUMENTS,
    Arguments,
    Call,
    CallFormat,
    CallReader,
    Grammar,
    HeldCallReader,
    format_of,
    is_open_string,
)
from tests.service.engines.test_constraint import ByteTokenizer, said

SMOLLM2, HERMES, MISTRAL_3, MISTRAL, LLAMA = FORMATS
NAMES = ("add", "find")
ADD = '{"name": "add", "arguments": {"a": 1}}'
FIND = '{"name": "find", "arguments": {"what": "x </tool_call> \\" y"}}'
FOUND = Call("find", '{"what": "x </tool_call> \\" y"}')


def read(style: CallFormat, *pieces: str) -> list[str | Call]:
    """Calls, and the text between them in one piece."""
    reader = CallReader(style, NAMES)
    items = [item for piece in pieces for item in reader.push(piece)] + reader.flush()
    joined: list[str | Call] = []
    for item in items:
        last = joined[-1] if joined else None
        if isinstance(item, str) and isinstance(last, str):
            joined[-1] = last + item
        else:
            joined.append(item)
    return joined


@pytest.mark.parametrize(("template", "expected"), [
    ('within <tool_call></tool_call> tags: <tool_call>\n{"name": …}\n</tool_call>', HERMES),
    ('as a list: <tool_call>[{"name": …}]</tool_call>', SMOLLM2),
    ("{{- '[TOOL_CALLS] [' }}", MISTRAL_3),
    ("{{- '[TOOL_CALLS][' }}", MISTRAL),
    ('{"name": function name, "parameters": dictionary of arguments}', LLAMA),
    ("<tool_call>\n<function=name>\n<parameter=a>", None),
    ("[TOOL_CALLS]name[ARGS]{}", None),
    ("nothing of the kind", None),
])  # fmt: skip
def test_a_template_tells_how_calls_are_written(template: str, expected: CallFormat | None) -> None:
    assert format_of(template) == expected


@pytest.mark.parametrize(("style", "text", "expected"), [
    (HERMES, f"<tool_call>\n{ADD}\n</tool_call>", [Call("add", '{"a": 1}')]),
    (HERMES, f"So:\n\n<tool_call>{FIND}</tool_call>\n", ["So:", FOUND]),
    (HERMES, f"<tool_call>\n{FIND}\n</tool_call>\n<tool_call>\n{ADD}\n</tool_call> ok ",
     [FOUND, Call("add", '{"a": 1}'), "ok "]),
    (HERMES, f"<tool_call>\n{ADD}", [Call("add", '{"a": 1}')]),
    (HERMES, '<tool_call>{"name": "add"}</tool_call>', [Call("add", "{}")]),
    (SMOLLM2, f"<tool_call>[{ADD}, {FIND}]</tool_call>", [Call("add", '{"a": 1}'), FOUND]),
    (MISTRAL, f"[TOOL_CALLS][{ADD}, {FIND}]", [Call("add", '{"a": 1}'), FOUND]),
    (MISTRAL_3, f"Now. [TOOL_CALLS] [{ADD}]", ["Now.", Call("add", '{"a": 1}')]),
    (LLAMA, ' {"name": "add", "parameters": {"a": "ü"}}', [Call("add", '{"a": "ü"}')]),
    (LLAMA, ADD, [Call("add", '{"a": 1}')]),
])  # fmt: skip
def test_calls_are_told_from_text_however_it_is_cut(
    style: CallFormat, text: str, expected: list[str | Call]
) -> None:
    assert read(style, text) == expected
    assert read(style, *text) == expected
    assert all(read(style, text[:at], text[at:]) == expected for at in range(len(text)))


NO_CALLS = [
    *("", "  ", "plain ", "a < b <tool", "<tool_call>", "<tool_call>{</tool_call>", "\n{\n"),
    *('<tool_call>{"name": "rm", "arguments": {}}</tool_call> x', "<tool_call>7</tool_call>"),
    *('<tool_call>{"name": "add", "arguments": 7}</tool_call>', "<tool_call>[]</tool_call>"),
    *('<tool_call>{"name": ["add"]}</tool_call>', "<tool_call>NaN</tool_call>"),
    *('{"name": "add", "arguments": {"a": "\\ud800"}}', '{"name": "add", "parameters": {"a":'),
    '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>',
    '<tool_call>{"name": "add", "arguments": {"a": ' + "[" * 5000 + "</tool_call>",
    '<tool_call>{"name": "add", "arguments": {"a": ' + "1" * 5000 + "}}</tool_call>",
]  # fmt: skip


@pytest.mark.parametrize("style", [SMOLLM2, HERMES, MISTRAL, LLAMA], ids=lambda s: s.sign)
@pytest.mark.parametrize("text", NO_CALLS, ids=lambda text: text[:60])
def test_what_is_no_call_is_given_back_to_the_last_letter(style: CallFormat, text: str) -> None:
    for begin in ("<tool_call>", "[TOOL_CALLS]"):
        marked = text.replace("<tool_call>", begin)
        assert read(style, marked) == ([marked] if marked else [])
        assert "".join(cast("list[str]", read(style, *marked[:200]))) == marked[:200]


def test_text_doesnt_wait_for_what_isnt_a_call() -> None:
    reader = CallReader(HERMES, NAMES)
    assert reader.push("one two ") == ["one two"]
    assert reader.push("three <to") == [" three"]
    assert reader.push("mato>") == [" <tomato>"]
    assert CallReader(LLAMA, NAMES).push("Hello") == ["Hello"]


@pytest.mark.parametrize("style", [SMOLLM2, HERMES, MISTRAL, LLAMA], ids=lambda s: s.sign)
def test_calls_that_have_to_come_are_told_as_they_come(style: CallFormat) -> None:
    name, deep = style.arguments, '{"a": {"b": ["}\\"]", {}]}, "c": 1}'
    calls = [f'{{"name": "{n}", "{name}": {a}}}' for n, a in (("f", deep), ("g", "{}"))]
    if style.listed:
        text = f"{style.opening}[{', '.join(calls)}]{style.closing}"
    else:
        text = "\n".join(f"{style.opening}{call}{style.closing}" for call in calls)
    for size in (1, 2, 5, len(text)):
        reader, told = HeldCallReader(style), list[list[str]]()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        for item in [i for piece in pieces for i in reader.push(piece)] + reader.flush():
            assert not isinstance(item, str)
            if isinstance(item, Call):
                told.append([item.name, item.arguments])
            else:
                told[-1][1] += item.text
        assert told == [["f", deep], ["g", "{}"]]
    reader = HeldCallReader(style)
    cut = text[: text.index('"c"')]
    assert reader.push(cut)[-1] == Arguments(deep[: deep.index('"c"')])
    assert reader.flush() == []
    assert HeldCallReader(style).push("{") == []


def test_whether_a_text_ends_within_a_string() -> None:
    assert [is_open_string(text) for text in ('"a', '"a"', '"a\\"', '\\"', '"\\\\"')] == [
        True, False, True, True, False,
    ]  # fmt: skip


# --- held to a form ------------------------------------------------------------------------------

FUNCTIONS: Mapping[str, Mapping[str, Any]] = {
    "add": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/number"}},
        "$defs": {"number": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "find": NO_ARGUMENTS,
}
SPECIAL = {"[TOOL_CALLS]": 258}


class MarkedTokenizer(ByteTokenizer):
    """A byte is a token; what opens a call is one that isn't shown otherwise."""

    vocab_size = 259

    def token_bytes(self, token_id: int) -> bytes:
        return b"[TOOL_CALLS]" if token_id == 258 else super().token_bytes(token_id)


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas(cast(Tokenizer, cast(Any, MarkedTokenizer())))


def accepts(
    schemas: Schemas,
    style: CallFormat,
    text: str,
    *,
    required: bool,
    several: bool = True,
    special: Mapping[str, int] | None = None,
) -> bool:
    """Whether an answer may be `text`."""
    grammar = Grammar(style, FUNCTIONS, required, several, special or {})
    matcher = schemas.compile_grammar(str(grammar), field="tools").start().matcher
    token_ids: list[int] = []
    for marker in special or {}:
        before, found, behind = text.partition(marker)
        token_ids = [*before.encode(), *([258] if found else []), *behind.encode()]
    token_ids = token_ids or [*text.encode()]
    return matcher.try_consume_tokens(token_ids) == len(token_ids) and matcher.is_accepting()


ONE = {
    SMOLLM2: '<tool_call>[{"name": "add", "arguments": {"a": 7}}]</tool_call>',
    HERMES: '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>',
    MISTRAL_3: '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 7}}]',
    MISTRAL: '[TOOL_CALLS][{"name": "add", "arguments": {"a": 7}}]',
    LLAMA: '{"name": "add", "parameters": {"a": 7}}',
}
TWO = {
    SMOLLM2: ONE[SMOLLM2].replace("]<", ', {"name": "find", "arguments": {}}]<'),
    HERMES: ONE[HERMES] + '\n<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>',
    MISTRAL_3: ONE[MISTRAL_3][:-1] + ', {"name": "find", "arguments": {}}]',
}


MARKED = [(style, {}) for style in FORMATS] + [(MISTRAL_3, SPECIAL), (MISTRAL, SPECIAL)]


@pytest.mark.parametrize(("style", "special"), MARKED, ids=str)
def test_calls_are_held_to_the_functions_and_their_schemas(
    schemas: Schemas, style: CallFormat, special: Mapping[str, int]
) -> None:
    def may_be(text: str, *, required: bool, several: bool = True) -> bool:
        return accepts(schemas, style, text, required=required, several=several, special=special)

    one, two = ONE[style], TWO.get(style)
    for required in (True, False):
        assert may_be(one, required=required)
        assert may_be(one, required=required, several=False)
        assert not may_be(one.replace("7", "10"), required=required), "beyond the maximum"
        assert not may_be(one.replace("add", "sub"), required=required), "no such function"
        if two is not None:
            assert may_be(two, required=required)
            assert not may_be(two, required=required, several=False)
        assert may_be("Hello\n{x}", required=required) is not required
    if style.begin:
        assert may_be(f"So: {one}", required=False)


@pytest.mark.parametrize("style", FORMATS, ids=lambda style: style.sign)
def test_whatever_the_model_says_is_a_call_where_one_is_required(
    schemas: Schemas, style: CallFormat
) -> None:
    grammar = Grammar(style, FUNCTIONS, required=True, several=False, special={})
    schema = schemas.compile_grammar(str(grammar), field="tools")
    for seed in range(10):
        text, _ = said(schema, seed)
        (call,) = read(style, text)
        assert isinstance(call, Call)
        arguments = json.loads(call.arguments)
        assert arguments == {} if call.name == "find" else 0 <= arguments["a"] <= 9


def test_what_is_no_schema_is_refused(schemas: Schemas) -> None:
    grammar = Grammar(HERMES, {"add": {"type": "object", "required": 7}}, True, True, {})
    with pytest.raises(InvalidRequest, match="the_field"):
        schemas.compile_grammar(str(grammar), field="the_field")
