"""Tools in the bodies of OpenAI's chat: functions, which are to be called, calls and results."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from service.api.bodies import RequestBody

FunctionName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="1 to 64 letters, digits, underscores, dots and dashes.",
    ),
]


class Function(RequestBody):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = Field(None, description="What it does, for the model.")
    parameters: dict[str, Any] | None = Field(
        None, description="JSON schema of the arguments, an object; none: it takes none."
    )
    strict: bool | None = Field(
        None, description="Hold the model's calls to the functions' schemas, of its own will too."
    )


class Tool(RequestBody):
    """One of `tools`."""

    type: Literal["function"]
    function: Function


class NamedFunction(RequestBody):
    """The name of one of the functions."""

    name: FunctionName


class NamedTool(RequestBody):
    """`tool_choice`: call this one."""

    type: Literal["function"]
    function: NamedFunction


def _choice_kind(value: object) -> str | None:
    if value in ("none", "auto", "required"):
        return "<word>"
    return "<function>" if isinstance(value, dict) else None


ToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")]
    | Annotated[NamedTool, Tag("<function>")],
    Discriminator(
        _choice_kind,
        custom_error_type="tool_choice_kind",
        custom_error_message="accepted are none, auto, required, or a function by its name",
    ),
]


class CalledFunction(RequestBody):
    """What a call of the conversation called, and with what."""

    name: str = Field(min_length=1, max_length=256)
    arguments: str = Field(description="A JSON object, as text.")


class ToolCall(RequestBody):
    """A call that the model made earlier in the conversation."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, description="Accepted, without effect.")
