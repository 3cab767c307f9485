"""Tools of a chat: what a request asks of them, and the calls in its answer."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_core.tokenization import ChatTemplateError, Tokenizer
from service.api.openai_choices import ChatChoice
from service.api.openai_types import ChatBody, Message
from service.api.tool_types import Function, NamedTool, ToolCall
from service.errors import InvalidRequest
from service.messages import FinishReason, GenerationChunk, GenerationModel
from service.tool_calls import (
    NO_ARGUMENTS,
    Arguments,
    Call,
    CallFormat,
    CallReader,
    Grammar,
    HeldCallReader,
    JsonSchema,
    format_of,
)

ID_CHARACTERS = 9
"""Of a call's id. Templates of Mistral's models refuse any other number, and nobody else minds."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions that a model may call, and how it calls them.

    `callable_names` are those that it may call now. `special` has the ids of what marks a call,
    where that is a special token, which else isn't shown.
    """

    style: CallFormat
    functions: Mapping[str, Function]
    callable_names: Sequence[str]
    required: bool
    several: bool
    special: Mapping[str, int]

    @property
    def listed(self) -> list[dict[str, Any]]:
        """As the model is told of them."""
        return [
            {"type": "function", "function": function.model_dump(exclude_none=True)}
            for function in self.functions.values()
        ]

    def grammar(self) -> Grammar | None:
        """What the answer has to look like, if not anything: calls that are required, of functions
        that are strict, or not more than one."""
        is_strict = any(self.functions[name].strict for name in self.callable_names)
        if not (self.required or is_strict or not self.several):
            return None
        schemas = {name: self._schema(self.functions[name]) for name in self.callable_names}
        return Grammar(self.style, schemas, self.required, self.several, self.special)

    def alone(self, name: str) -> Grammar:
        """The same of one function."""
        schemas = {name: self._schema(self.functions[name])}
        return Grammar(self.style, schemas, self.required, self.several, self.special)

    def _schema(self, function: Function) -> JsonSchema:
        if self.required or function.strict:
            return parameters_of(function)
        return {"type": "object"}


def parameters_of(function: Function) -> JsonSchema:
    """The schema of a function's arguments."""
    given = function.parameters
    return NO_ARGUMENTS if given is None else {"type": "object", **given}


def tools_of(body: ChatBody, model: GenerationModel) -> Tools | None:
    """What a request asks of tools; None where the model is to call none.

    Raises `InvalidRequest`: a model without tools, functions that share a name, a choice that
    isn't among them, a history with calls that the model's template has no place for.
    """
    require_place_for_calls(body.messages, model)
    choice = body.tool_choice
    if body.tools is None:
        if choice in (None, "none", "auto"):
            return None
        raise InvalidRequest(
            "tool_choice asks for a call, and there are no tools", field="tool_choice"
        )
    takes_tools = takes_tools_of(model)
    if choice == "none":
        return None
    if not takes_tools:
        raise InvalidRequest(
            f"model {model.card.name!r} takes no tools: its chat template has no place for them; "
            "leave tools out, or ask another model",
            field="tools",
        )
    style = format_of(model.tokenizer.chat_template or "")
    if style is None:
        raise InvalidRequest(
            f"the chat template of model {model.card.name!r} takes tools, but asks for calls in a "
            "format that this service doesn't read; leave tools out, or ask another model",
            field="tools",
        )
    functions = functions_of(body)
    names = list(functions)
    if isinstance(choice, NamedTool):
        names = [choice.function.name]
        if names[0] not in functions:
            raise InvalidRequest(
                f"tool_choice.function.name: {names[0]!r} is not among tools; they have "
                f"{', '.join(functions)}",
                field="tool_choice.function.name",
            )
    for place, tool in enumerate(body.tools):
        kind = parameters_of(tool.function).get("type")
        if kind != "object":
            field = f"tools[{place}].function.parameters"
            raise InvalidRequest(
                f"{field}: its type is {json.dumps(kind)[:60]}; "
                "a function's arguments are an object",
                field=field,
            )
    return Tools(
        style=style,
        functions=functions,
        callable_names=names,
        required=choice == "required" or isinstance(choice, NamedTool),
        several=body.parallel_tool_calls is not False and not isinstance(choice, NamedTool),
        special=special_markers(style, model.tokenizer),
    )


def takes_tools_of(model: GenerationModel) -> bool:
    """Whether a model's chat template takes tools. Raises `InvalidRequest` for a broken one."""
    try:
        return model.tokenizer.takes_tools
    except ChatTemplateError as error:
        raise InvalidRequest(f"messages: {error}", field="messages") from error


def functions_of(body: ChatBody) -> dict[str, Function]:
    """The functions by name."""
    functions: dict[str, Function] = {}
    for place, tool in enumerate(body.tools or ()):
        name = tool.function.name
        if name in functions:
            field = f"tools[{place}].function.name"
            raise InvalidRequest(f"{field}: {name!r} is the name of two tools", field=field)
        functions[name] = tool.function
    return functions


def special_markers(style: CallFormat, tokenizer: Tokenizer) -> dict[str, int]:
    """Which of the format's marks are special tokens of the vocabulary, with their ids."""
    found: dict[str, int] = {}
    for marker in filter(None, (style.begin, style.end)):
        token_ids = tokenizer.encode(marker, special_tokens=False)
        if len(token_ids) == 1 and tokenizer.is_special(token_ids[0]):
            found[marker] = token_ids[0]
    return found


# --- the conversation so far ---------------------------------------------------------------------


def require_place_for_calls(messages: Sequence[Message], model: GenerationModel) -> None:
    """Raises where the history has calls or results, and the model's template no place for them."""
    for place, message in enumerate(messages):
        if (message.tool_calls or message.role == "tool") and not takes_tools_of(model):
            raise InvalidRequest(
                f"messages[{place}] has to do with tools, and model {model.card.name!r} takes "
                "none: its chat template has no place for them",
                field=f"messages[{place}]",
            )


def bytes_of_tools(body: ChatBody, tools: Tools | None) -> int:
    """About how much a template writes of tools and of calls."""
    calls = [call for message in body.messages for call in message.tool_calls or ()]
    size = sum(len(call.function.name) + len(call.function.arguments) for call in calls)
    return size + (0 if tools is None else len(json.dumps(tools.listed)))


def message_of(message: Message, place: int) -> dict[str, Any]:
    """A message as templates take it; `place` is where it stands. Raises `InvalidRequest`."""
    field = f"messages[{place}]"
    # OpenAI's newer name of the same role; the templates of open models know the older.
    role = "system" if message.role == "developer" else message.role
    said: dict[str, Any] = {"role": role, "content": message.text}
    if message.content is None and not (message.role == "assistant" and message.tool_calls):
        raise InvalidRequest(f"{field}.content is missing", field=f"{field}.content")
    for name, given, of in (
        ("tool_calls", message.tool_calls is not None, "assistant"),
        ("tool_call_id", message.tool_call_id is not None, "tool"),
    ):
        if given and message.role != of:
            raise InvalidRequest(
                f"{field}.{name} is for messages of the role {of}; this one's is {message.role}",
                field=f"{field}.{name}",
            )
    if message.role == "tool":
        if message.tool_call_id is None:
            raise InvalidRequest(f"{field}.tool_call_id is missing", field=f"{field}.tool_call_id")
        said["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            said["name"] = message.name
    if message.tool_calls:
        said["tool_calls"] = [
            called(call, f"{field}.tool_calls[{number}]")
            for number, call in enumerate(message.tool_calls)
        ]
    return said


def called(call: ToolCall, field: str) -> dict[str, Any]:
    """A call of the history; templates take its arguments as an object. Raises `InvalidRequest`."""
    field = f"{field}.function.arguments"
    try:
        arguments: Any = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{field} is not valid JSON: {error}", field=field) from error
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            f"{field}: {call.function.arguments[:60]!r} is not accepted; it is a JSON object, "
            "as text",
            field=field,
        )
    function: dict[str, Any] = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


# --- the answer ----------------------------------------------------------------------------------


class CallingChoice(ChatChoice):
    """A choice of `/v1/chat/completions` that may call functions.

    A call is told when it is whole, so that what turns out to be none is text. Where a grammar
    leaves nothing but calls, they are told as they come, to where the text ends.
    """

    def __init__(
        self, index: int, tokenizer: Tokenizer, tools: Tools, *, wants_logprobs: bool
    ) -> None:
        super().__init__(index, tokenizer, wants_logprobs=wants_logprobs)
        self._reader: CallReader | HeldCallReader = (
            HeldCallReader(tools.style)
            if tools.required
            else CallReader(tools.style, tools.callable_names)
        )
        self._calls = 0

    def deltas(self, chunk: GenerationChunk) -> list[dict[str, Any]]:
        """The role first, then text and calls in their order, then the reason of the end.

        A call is its id and name first, then its arguments.
        """
        found = self.opening(None)
        logprobs = self._logprobs(chunk) if chunk.logprobs else None
        for item in self._read(chunk):
            if isinstance(item, str):
                found.append(self._delta({"content": item}, logprobs))
                logprobs = None
                continue
            arguments = item.text if isinstance(item, Arguments) else item.arguments
            if isinstance(item, Call):
                call = {"index": self._calls, **self._call(item.name, "")}
                found.append(self._delta({"tool_calls": [call]}))
                self._calls += 1
            if arguments:
                rest = {"index": self._calls - 1, "function": {"arguments": arguments}}
                found.append(self._delta({"tool_calls": [rest]}))
        if logprobs is not None:
            found.append(self._delta({}, logprobs))
        if chunk.finish_reason is not None:
            found.append(self._delta({}, finish_reason=self._reason(chunk.finish_reason)))
        return found

    def whole(self, chunk: GenerationChunk) -> dict[str, Any]:
        """The message of a whole answer; its content is null where it is calls alone."""
        answer = super().whole(chunk)
        text, calls = "", list[dict[str, Any]]()
        for item in (*self._reader.push(chunk.text), *self._reader.flush()):
            match item:
                case str():
                    text += item
                case Call():
                    calls.append(self._call(item.name, item.arguments))
                case Arguments():
                    calls[-1]["function"]["arguments"] += item.text
        answer["message"]["content"] = text or None
        if calls:
            answer["message"]["tool_calls"] = calls
            self._calls += len(calls)
        if chunk.finish_reason is not None:
            answer["finish_reason"] = self._reason(chunk.finish_reason)
        return answer

    def _read(self, chunk: GenerationChunk) -> Sequence[str | Call | Arguments]:
        items = self._reader.push(chunk.text)
        return items if chunk.finish_reason is None else [*items, *self._reader.flush()]

    def _call(self, name: str, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        call_id = uuid.uuid4().hex[:ID_CHARACTERS]
        return {"id": call_id, "type": "function", "function": function}

    def _reason(self, reason: FinishReason) -> str:
        stopped = reason is FinishReason.STOP
        return "tool_calls" if self._calls and stopped else reason.value
