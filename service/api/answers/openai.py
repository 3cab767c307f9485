"""Answers of OpenAI's routes, and the error that every dialect but one tells."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.messages import Task


class Problem(TypedDict):
    """What went wrong: `param` names the field at fault, where one is."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(TypedDict):
    """An error as OpenAI's clients read it."""

    error: Problem


class InputUsage(TypedDict):
    """Tokens of a request that generates nothing."""

    prompt_tokens: int
    total_tokens: int


class PromptDetails(TypedDict):
    """How many tokens of the prompts were in the cache already, and weren't read again."""

    cached_tokens: int


class GenerationUsage(InputUsage):
    """Tokens of a request that generates; each prompt counts once."""

    completion_tokens: int
    prompt_tokens_details: PromptDetails


class Cut(TypedDict):
    """Said of an input that was too long and was cut; of no other."""

    truncated: NotRequired[Literal[True]]
    dropped_tokens: NotRequired[Annotated[int, Field(ge=1)]]


class ModelObject(TypedDict):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: Task
    max_model_len: Annotated[int, Field(ge=1)]


class ModelList(TypedDict):
    """Every served model."""

    object: Literal["list"]
    data: list[ModelObject]


class Embedding(Cut):
    """The vector of one input; base64 of little-endian 32-bit floats where that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(TypedDict):
    """A vector for each input, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: InputUsage


FinishReason = Literal["stop", "length"]


class CompletionLogprobs(TypedDict):
    """Log probabilities of tokens; null for a prompt's first, which nothing stands before."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """A continuation, or what an event adds to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class Completion(TypedDict):
    """Continuations of each prompt."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: GenerationUsage


class CompletionEvent(TypedDict):
    """What an event of a stream adds; `usage` is there where it was asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[GenerationUsage | None]


class TokenRow(TypedDict):
    """A token and its log probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(TokenRow):
    """The token that was chosen, with the likeliest."""

    top_logprobs: list[TokenRow]


class ChatLogprobs(TypedDict):
    """Log probabilities of a message's tokens."""

    content: list[ChosenToken]
    refusal: None


class AssistantMessage(TypedDict):
    """The model's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One answer to a conversation."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: GenerationUsage


class Delta(TypedDict):
    """What is new of a message; the first has the role, the last is empty."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChatDelta(TypedDict):
    """What an event adds to one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionEvent(TypedDict):
    """What an event of a stream adds; `usage` is there where it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatDelta]
    usage: NotRequired[GenerationUsage | None]
