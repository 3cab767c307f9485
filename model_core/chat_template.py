"""Chat templates: messages to the one text that a model was trained on.

A template is code that comes with a checkpoint: it runs in jinja2's immutable sandbox, and what
it may write is bounded (what it may compute is not). Requests never bring one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NoReturn, cast

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Far beyond any context window, far below what hurts.
MAX_CHARACTERS: Final = 8_000_000

TOOLS: Final = ("tools", "xml_tools")
"""What templates call the functions that a model may call: all but SmolLM3's say `tools`."""


class ChatTemplateError(Exception):
    """A template that is invalid, refuses the messages, or writes too much; the message says."""


class _GenerationBlock(Extension):
    """`{% generation %}` marks what training learns from; here its body is all that counts."""

    tags: set[str] = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template. `special_tokens` are the texts that it may name: "bos_token", …

    It `takes_tools` where it looks at the functions that a model may call. Raises
    `ChatTemplateError` for a template that isn't valid.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        # The whitespace rules, loop controls and functions that templates are written for.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        cast("dict[str, object]", environment.filters)["tojson"] = _to_json  # pyright: ignore[reportUnknownMemberType]
        cast("dict[str, object]", environment.globals)["raise_exception"] = _refuse  # pyright: ignore[reportUnknownMemberType]
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(
                f"the chat template is not valid, line {error.lineno}: {error.message}"
            ) from error
        self._special_tokens = dict(special_tokens)
        named = meta.find_undeclared_variables(environment.parse(source))
        self.takes_tools: bool = not named.isdisjoint(TOOLS)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] | None,
        now: Callable[[], datetime],
    ) -> str:
        """The text for `messages`; `now` answers the templates that ask for the date."""

        def strftime_now(layout: str) -> str:
            return now().strftime(layout)

        listed = None if tools is None else [dict(tool) for tool in tools]
        context: dict[str, object] = {
            **self._special_tokens,
            **dict.fromkeys(TOOLS, listed),
            "messages": [dict(message) for message in messages],
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": strftime_now,
        }
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(context):
                length += len(part)
                if length > MAX_CHARACTERS:
                    raise ChatTemplateError(
                        f"the chat template writes more than {MAX_CHARACTERS} characters"
                    )
                parts.append(part)
        except ChatTemplateError:
            raise
        except Exception as error:  # a template can fail in any way that an expression can
            detail = str(error) or type(error).__name__
            raise ChatTemplateError(f"the chat template can't render this: {detail}") from error
        return "".join(parts)


def _refuse(message: str) -> NoReturn:
    raise ChatTemplateError(f"the chat template refuses the messages: {message}")


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; jinja2's own filter escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
