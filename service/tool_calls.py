"""Calls of functions as models write them: formats, grammars that hold a text to one, reading.

How a model was trained to write a call is told by its chat template. A format is a row of a table.
"""

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

from service.engines.constraint import HEAD, as_written
from service.engines.text import overlap

JsonSchema: TypeAlias = Mapping[str, Any]

NO_ARGUMENTS: JsonSchema = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How calls stand in a text: objects with a `name` and `arguments`, under that name.

    `sign` is what a template has that asks for the format. Each call, or where they are `listed`
    the list of all, stands between `opening` and `closing`; without an `opening` a text that
    begins with a call is one. Not in every format a text may have `several`.
    """

    sign: str
    opening: str
    closing: str = ""
    arguments: str = "arguments"
    listed: bool = False
    several: bool = True

    @property
    def begin(self) -> str:
        """What tells that a call begins; models differ in the spaces around it."""
        return self.opening.strip()

    @property
    def end(self) -> str:
        """What tells that it has ended; empty where the text ends with it."""
        return self.closing.strip()


FORMATS = (
    # SmolLM2's, with tools in its template.
    CallFormat("<tool_call>[", "<tool_call>", "</tool_call>", listed=True),
    # Hermes', which Qwen 2.5, Qwen 3 and SmolLM3 took over.
    CallFormat("<tool_call>", "<tool_call>\n", "\n</tool_call>"),
    # Mistral's: since Small 3 with a space, before without.
    CallFormat("[TOOL_CALLS] [", "[TOOL_CALLS] ", listed=True),
    CallFormat("[TOOL_CALLS][", "[TOOL_CALLS]", listed=True),
    # Llama 3's own functions.
    CallFormat('"parameters": dictionary', "", arguments="parameters", several=False),
)
"""The first whose sign a template has is the model's."""

FOREIGN = ("<function=", "<arg_key>", "[ARGS]")
"""Signs of formats that aren't JSON, though they share another sign with one of the table."""


def format_of(template: str) -> CallFormat | None:
    """The format that a chat template asks for; None where it is none of the table."""
    if any(sign in template for sign in FOREIGN):
        return None
    return next((row for row in FORMATS if row.sign in template), None)


# --- grammars ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a text with calls looks like, in llguidance's variant of Lark.

    `functions` are schemas of arguments by name. Text without a call is as good unless one is
    `required`; not more than one comes unless there may be `several`. `special` has the ids of what
    opens or closes a call, where that is a special token of the vocabulary.
    """

    style: CallFormat
    functions: Mapping[str, JsonSchema]
    required: bool
    several: bool
    special: Mapping[str, int]

    def __str__(self) -> str:
        style, several = self.style, self.several and self.style.several
        calls = '"[" call (", " call)* "]"' if several else '"[" call "]"'
        inner = calls if style.listed else "call"
        rest_of_opening = _literal(style.opening[len(style.begin) :])
        body = f"{rest_of_opening} {inner} {self._marked(style.closing, style.end)}"
        rules = [self._start(several and not style.listed), f"block: {self._open()} {body}"]
        rules.append(f"call: {' | '.join(f'call_{n}' for n in range(len(self.functions)))}")
        for number, (name, schema) in enumerate(self.functions.items()):
            head = f'{{"name": {json.dumps(name)}, "{style.arguments}": '
            # A schema stays whole, so that references within it lead where they did.
            written = json.dumps(as_written(schema))
            rules.append(f'call_{number}: {_literal(head)} %json {written} "}}"')
        rules.append("rest: TEXT")
        # What begins as a call would is one, where nothing else marks it.
        text = r"/(.|\n)*/" if style.begin else r"/([^{\s](.|\n)*)?/"
        rules.append(f"TEXT: {text}")
        if self._begins_in_text:
            rules.append(f"head[lazy]: TEXT {_literal(style.begin)}")
        return HEAD + "\n".join(rules) + "\n"

    @property
    def _begins_in_text(self) -> bool:
        """Whether a call may begin anywhere, by letters that any text may have."""
        begin = self.style.begin
        return bool(begin) and not self.required and begin not in self.special

    def _start(self, several: bool) -> str:
        if self.required:
            return 'start: block ("\\n" block)*' if several else "start: block"
        return "start: block* rest" if several else "start: block | rest"

    def _open(self) -> str:
        begin = self.style.begin
        if self._begins_in_text:
            return "head"
        before = "" if self.required or not begin else "rest "
        return before + self._marked(begin, begin)

    def _marked(self, text: str, marker: str) -> str:
        """`text` with a marker in it, which may be a token of its own."""
        if marker not in self.special:
            return _literal(text)
        before, _, behind = text.partition(marker)
        return f"{_literal(before)} <[{self.special[marker]}]> {_literal(behind)}"


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function: its `arguments` are a JSON object, as text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the arguments of the last call."""

    text: str


class HeldCallReader:
    """Reads a text that a grammar holds to calls alone: arguments come out as they come in.

    A call comes first with none. Where the text ends within one, so do its arguments.
    """

    def __init__(self, style: CallFormat) -> None:
        # As the grammar has it, to the space.
        self._head = re.compile(rf'\{{"name": "([^"]*)", "{style.arguments}": ')
        self._held = ""
        self._object: OpenObject | None = None
        self._has_called = False

    def push(self, text: str) -> list[str | Call | Arguments]:
        """What comes with this `text`."""
        self._held += text
        found: list[str | Call | Arguments] = []
        while self._held:
            if self._object is None:
                head = self._head.search(self._held)
                if head is None:
                    break
                found.append(Call(head[1], ""))
                self._held, self._object = self._held[head.end() :], OpenObject()
                self._has_called = True
                continue
            end = self._object.end(self._held)
            read = len(self._held) if end is None else end
            found.append(Arguments(self._held[:read]))
            self._held = self._held[read:]
            self._object = self._object if end is None else None
        return found

    def flush(self) -> list[str | Call | Arguments]:
        """A text that ended before its first call had begun, as it is."""
        held, self._held = self._held, ""
        return [held] if held and not self._has_called else []


class OpenObject:
    """A JSON object whose end isn't there yet."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def end(self, text: str) -> int | None:
        """Where in `text`, which goes on from all before, the object has ended; None: nowhere."""
        for place, character in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._in_string:
                self._is_escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return None


class CallReader:
    """Text in, as it comes; text and calls out, in their order, each as soon as it is certain.

    A call is one of `functions` in the format's JSON; what begins like one and isn't is text. The
    spaces before and after a call belong to it.
    """

    def __init__(self, style: CallFormat, functions: Container[str]) -> None:
        self._style = style
        self._functions = functions
        self._held = ""
        self._searched = 0
        self._in_call = False
        # Where nothing opens a call, only the beginning of the text can be one.
        self._may_begin = True
        self._after_call = False

    def push(self, text: str) -> list[str | Call]:
        """What is certain with this `text`."""
        self._held += text
        found: list[str | Call] = []
        while self._step(found):
            pass
        return found

    def flush(self) -> list[str | Call]:
        """The rest, once no text follows."""
        held, self._held = self._held, ""
        if self._in_call:
            # Some models end their answer instead of closing their last call.
            calls = read_calls(held, self._style, self._functions)
            return [*calls] if calls else [self._style.begin + held]
        return [held] if held else []

    def _step(self, found: list[str | Call]) -> bool:
        """Whether there may be more to take from what is held."""
        return self._take_call(found) if self._in_call else self._take_text(found)

    def _take_text(self, found: list[str | Call]) -> bool:
        if self._after_call:
            self._held = self._held.lstrip()
        if not self._held:
            return False
        begin = self._style.begin
        if not begin:
            return self._take_beginning(found)
        at = self._held.find(begin)
        if at < 0:
            kept = overlap(self._held, begin)
            final = self._held[: len(self._held) - kept].rstrip()
            self._give(found, final)
            self._held = self._held[len(final) :]
            return False
        self._give(found, self._held[:at].rstrip())
        self._enter(self._held[at + len(begin) :])
        return True

    def _take_beginning(self, found: list[str | Call]) -> bool:
        """Where nothing opens a call: it is one if its first character is that of an object."""
        first = self._held.lstrip()[:1]
        if self._may_begin and first in ("", "{"):
            if first:
                self._enter(self._held)
            return False
        self._may_begin = False
        self._give(found, self._held)
        self._held = ""
        return False

    def _enter(self, held: str) -> None:
        self._held, self._searched, self._in_call = held, 0, True

    def _take_call(self, found: list[str | Call]) -> bool:
        end = self._style.end
        at = self._held.find(end, self._searched) if end else -1
        if at < 0:
            self._searched = max(0, len(self._held) - len(end) + 1)
            return False
        inner, behind = self._held[:at], at + len(end)
        calls = read_calls(inner, self._style, self._functions)
        if calls is None and is_open_string(inner):
            self._searched = behind  # it stands in a text that the function gets
            return True
        if calls is None:
            self._give(found, self._style.begin + self._held[:behind])
        else:
            found += calls
        self._after_call = calls is not None
        self._held, self._in_call = self._held[behind:], False
        return True

    def _give(self, found: list[str | Call], text: str) -> None:
        if text:
            found.append(text)
            self._after_call = False


def read_calls(text: str, style: CallFormat, functions: Container[str]) -> list[Call] | None:
    """The calls that `text` is: an object, or a list of some; None if it is anything else."""
    try:
        value: Any = json.loads(text, parse_constant=_refuse)
        items = cast("Sequence[Any]", value if isinstance(value, list) else [value])
        calls = [_read_call(item, style, functions) for item in items]
    except (ValueError, RecursionError):
        return None
    return calls or None


def _read_call(item: Any, style: CallFormat, functions: Container[str]) -> Call:
    if not isinstance(item, dict):
        raise ValueError("a call is an object")
    fields = cast("dict[str, Any]", item)
    name = fields.get("name")
    # Models mix up the two names that arguments have.
    given = [fields[key] for key in (style.arguments, "arguments", "parameters") if key in fields]
    arguments: Any = given[0] if given else {}
    if not isinstance(name, str) or name not in functions or not isinstance(arguments, dict):
        raise ValueError("a call has the name of a function, and an object of arguments")
    written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    written.encode()  # half a surrogate pair is no text
    return Call(name, written)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def is_open_string(text: str) -> bool:
    """Whether JSON that begins with `text` is within a string at its end."""
    is_open, is_escaped = False, False
    for character in text:
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = is_open
        elif character == '"':
            is_open = not is_open
    return is_open
