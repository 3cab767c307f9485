"""Bodies of OpenAI's requests, as their clients send them: fields, ranges, what is refused.

What this service can't do is a field that takes null alone, so that a client reads which field
it is. Checks over several fields, or that need the model, are where the request runs.
"""

from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.api.bodies import RequestBody
from service.api.tool_types import Tool, ToolCall, ToolChoice
from service.messages import Truncation

INT64_MAX = 2**63 - 1

# Fields of the protocol that are refused by name; null means that the client doesn't use them.
Unsupported: TypeAlias = None


def _input_kind(value: object) -> str | None:
    first = value[0] if isinstance(value, list) and value else None  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str):
        return "<text>"
    if isinstance(first, str):
        return "<texts>"
    if isinstance(first, int) and not isinstance(first, bool):
        return "<token ids>"
    if isinstance(first, list):
        return "<token id lists>"
    return None


CUTS = (Truncation.ERROR, Truncation.RIGHT, Truncation.LEFT)


def _require_cut(value: Truncation) -> Truncation:
    if value not in CUTS:
        raise PydanticCustomError(
            "cut_kind",
            "accepted are error, right, left; chunk is for embeddings, whose vectors have a mean",
        )
    return value


Cutting: TypeAlias = Annotated[
    Truncation,
    AfterValidator(_require_cut),
    WithJsonSchema({"enum": [cut.value for cut in CUTS], "type": "string"}),
]
"""What becomes of texts that can't be read in windows."""

TRUNCATION: Any = Field(
    Truncation.ERROR,
    description="Which end of a text that is too long is dropped: left, right; error refuses it.",
)

Priority: TypeAlias = Annotated[
    int | None,
    Field(
        ge=-100,
        le=100,
        description="Who waits with a lower one comes first; a step is worth ten seconds of "
        "waiting. 0 unless given.",
    ),
]

# A body has room for millions of wrong items, and noting each would hold the event loop.
STOP_AT_FIRST = Field(fail_fast=True)


def _text_or_list(value: object) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<list>" if isinstance(value, list) else None


# The kind is told by the first item: trying each kind in turn took three times as long on a body
# of 10 MB, and told a client what is wrong with all four.
Texts: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], STOP_AT_FIRST, Tag("<texts>")]
    | Annotated[list[int], STOP_AT_FIRST, Tag("<token ids>")]
    | Annotated[
        list[Annotated[list[int], STOP_AT_FIRST]],
        STOP_AT_FIRST,
        Tag("<token id lists>"),
    ],
    Discriminator(
        _input_kind,
        custom_error_type="input_kind",
        custom_error_message="accepted are a string, or a list that isn't empty of strings, of "
        "token ids, or of lists of token ids",
    ),
]


def _refuse_true(value: bool) -> bool:
    if value:
        raise PydanticCustomError("not_stored", "nothing is stored here; accepted is false")
    return value


# A literal False would take 0 as well: they are equal.
NotStored: TypeAlias = Annotated[
    bool, AfterValidator(_refuse_true), WithJsonSchema({"type": "boolean", "const": False})
]

ModelName: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=256, description="A name that /v1/models lists.")
]
StopString: TypeAlias = Annotated[str, Field(min_length=1, max_length=1000)]
StopStrings: TypeAlias = Annotated[
    Annotated[StopString, Tag("<text>")]
    | Annotated[list[StopString], STOP_AT_FIRST, Field(max_length=4), Tag("<list>")],
    Discriminator(
        _text_or_list,
        custom_error_type="stop_kind",
        custom_error_message="accepted are a string or a list of up to 4 strings",
    ),
]


TextOrTexts: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], STOP_AT_FIRST, Field(min_length=1), Tag("<list>")],
    Discriminator(
        _text_or_list,
        custom_error_type="input_kind",
        custom_error_message="accepted are a text, or a list of texts",
    ),
]


class EmbeddingsBody(RequestBody):
    """`POST /v1/embeddings`."""

    model: ModelName
    input: Texts = Field(description="Texts, or token ids that are used as they are.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64 is of little-endian 32-bit floats."
    )
    dimensions: int | None = Field(
        None, ge=1, le=65536, description="Keep this many numbers and normalise again."
    )
    truncation: Truncation = Field(
        Truncation.ERROR,
        description="Which end of a text that is too long is dropped: left, right; error refuses "
        "it, chunk reads it in windows and averages their vectors.",
    )
    chunk_overlap: int | None = Field(
        None, ge=0, le=65536, description="Tokens that neighbouring windows share; 0 unless given."
    )
    priority: Priority = None
    user: str | None = Field(None, description="Accepted, without effect.")


class StreamOptions(RequestBody):
    """`stream_options`."""

    include_usage: bool | None = None


class TextFormat(RequestBody):
    """`response_format`: any text."""

    type: Literal["text"]


class ObjectFormat(RequestBody):
    """`response_format`: a JSON object."""

    type: Literal["json_object"]


class JsonSchema(RequestBody):
    """A schema as OpenAI's clients send it."""

    name: str | None = Field(None, max_length=256, description="Accepted, without effect.")
    description: str | None = Field(None, description="Accepted, without effect.")
    # `schema` is taken by pydantic's own models.
    definition: dict[str, Any] = Field(alias="schema", description="The JSON schema.")
    strict: bool | None = Field(None, description="Every schema is kept to, with and without.")


class SchemaFormat(RequestBody):
    """`response_format`: JSON that a schema accepts."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


def _format_kind(value: object) -> str | None:
    kind = cast("dict[str, object]", value).get("type") if isinstance(value, dict) else None
    return f"<{kind}>" if kind in ("text", "json_object", "json_schema") else None


ResponseFormat: TypeAlias = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[ObjectFormat, Tag("<json_object>")]
    | Annotated[SchemaFormat, Tag("<json_schema>")],
    Discriminator(
        _format_kind,
        custom_error_type="format_kind",
        custom_error_message="its type is text, json_object or json_schema",
    ),
]


class SamplingBody(RequestBody):
    """What completions and chat share: how tokens are chosen and how they are sent."""

    model: ModelName
    max_tokens: int | None = Field(None, ge=1, le=INT64_MAX, description="Most tokens to generate.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; 1 unless given.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Keep the likeliest tokens up to this probability."
    )
    top_k: int | None = Field(
        None, ge=-1, le=INT64_MAX, description="Keep this many of the likeliest; 0 or -1 is all."
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="Keep tokens of this share of the likeliest's probability."
    )
    n: int | None = Field(None, ge=1, le=16, description="Continuations of each prompt.")
    stop: StopStrings | None = Field(
        None,
        description="Up to 4 strings that end the text; they are not part of it, and don't cut "
        "what response_format or a required call holds to a form.",
    )
    seed: int | None = Field(
        None, ge=-(2**63), le=INT64_MAX, description="The same seed gives the same text."
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=1024, description="Token id, as a string, to what is added to its logit."
    )
    use_beam_search: bool | None = Field(
        None, description="Look for the likeliest text; unless given, as the model's authors do."
    )
    best_of: int | None = Field(
        None, ge=1, le=1024, description="How many beams a beam search has; without one, 1 alone."
    )
    length_penalty: float | None = Field(
        None, ge=-10, le=10, description="Beams compare by log probability / length ** this."
    )
    early_stopping: bool | None = Field(
        None, description="End a beam search as soon as as many texts as beams have ended."
    )
    ignore_eos: bool | None = Field(None, description="Go on after the model's end token.")
    min_tokens: int | None = Field(
        None, ge=0, le=INT64_MAX, description="Fewest tokens before the end token may come."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: Priority = None
    response_format: ResponseFormat | None = Field(
        None, description="Text, a JSON object, or JSON that a schema accepts."
    )
    user: str | None = Field(None, description="Accepted, without effect.")


class CompletionsBody(SamplingBody):
    """`POST /v1/completions`."""

    prompt: Texts = Field(description="Texts, or token ids that are used as they are.")
    max_tokens: int | None = Field(
        None,
        ge=0,
        le=INT64_MAX,
        description="Most tokens to generate; with echo 0 too, for the prompt alone.",
    )
    echo: bool | None = Field(None, description="Begin the text with the prompt.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Give log probabilities of this many of the likeliest."
    )
    suffix: Unsupported = None


class TextPart(RequestBody):
    """A part of a message."""

    type: Literal["text"]
    text: str


MessageContent: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TextPart], STOP_AT_FIRST, Tag("<list>")],
    Discriminator(
        _text_or_list,
        custom_error_type="content_kind",
        custom_error_message="accepted are a string or a list of text parts",
    ),
]


class Message(RequestBody):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: MessageContent | None = Field(
        None, description="A text, or parts of one; an assistant that calls tools may say nothing."
    )
    name: str | None = Field(None, max_length=256, description="Accepted, without effect.")
    refusal: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Annotated[list[ToolCall], STOP_AT_FIRST] | None = Field(
        None, max_length=128, description="What an assistant called."
    )
    tool_call_id: str | None = Field(
        None, min_length=1, max_length=256, description="Whose result a tool's message is."
    )

    @property
    def text(self) -> str:
        """The content in one string; parts stand on lines of their own."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content)


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], STOP_AT_FIRST] = Field(min_length=1)
    max_completion_tokens: int | None = Field(
        None, ge=1, le=INT64_MAX, description="Most tokens to generate; unless given, all left."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="Give this many of the likeliest; needs `logprobs`."
    )
    tools: Annotated[list[Tool], STOP_AT_FIRST] | None = Field(
        None, min_length=1, max_length=128, description="Functions that the model may call."
    )
    tool_choice: ToolChoice | None = Field(
        None, description="Whether it calls any, and which; auto unless given."
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether it may make more than one call; it may unless given."
    )
    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    modalities: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None
    store: NotStored | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: dict[str, str] | None = Field(None, description="Accepted, without effect.")
    safety_identifier: str | None = Field(None, description="Accepted, without effect.")
    prompt_cache_key: str | None = Field(None, description="Accepted, without effect.")
