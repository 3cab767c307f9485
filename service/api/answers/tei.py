"""Answers of text-embeddings-inference's routes, and its error."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Vectors = list[list[float]]
VectorsOfTokens = list[list[list[float]]]
Cosines = list[Annotated[float, Field(ge=-1.0001, le=1.0001)]]  # rounded as 32-bit floats are
Texts = list[str]


class TeiError(TypedDict):
    """An error as text-embeddings-inference's clients read it."""

    error: str
    error_type: Literal["Validation", "Overloaded", "Backend", "Unhealthy", "Unauthorized"]


class Prediction(TypedDict):
    """A label, and how likely it is."""

    score: float
    label: str


Predictions = list[Prediction] | list[list[Prediction]]


class Rank(TypedDict):
    """A text's place in the request, and how relevant it is."""

    index: int
    score: float
    text: NotRequired[str]


Ranks = list[Rank]


class Token(TypedDict):
    """A token, and the characters of the text that it stands for; null where it stands for none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


TokensOfTexts = list[list[Token]]

Dispatched = Vectors | Ranks | Predictions
"""What the default model's task gives."""
