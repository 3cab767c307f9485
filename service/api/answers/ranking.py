"""Answers of the routes that classify, rank and compare texts."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.answers.openai import Cut, InputUsage

Probability = Annotated[float, Field(ge=0, le=1)]
ScoredBy = Literal["cross-encoder", "cosine"]


class LabelScore(TypedDict):
    """A label, and how likely it is."""

    label: str
    score: float


class Classified(Cut):
    """The likeliest label of one input; `scores` for `probs` where raw ones were asked for."""

    index: int
    label: str
    probs: NotRequired[list[Probability]]
    scores: NotRequired[list[float]]
    num_classes: Annotated[int, Field(ge=1)]
    labels: NotRequired[list[LabelScore]]


class ClassificationList(TypedDict):
    """The likeliest label of each input, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: InputUsage


class DocumentText(TypedDict):
    """A document, repeated."""

    text: str


class RankedDocument(Cut):
    """A document's place in the request, and how relevant it is."""

    index: int
    relevance_score: float
    document: NotRequired[DocumentText]


class ApiVersion(TypedDict):
    """The version in the route."""

    version: str


class BilledUnits(TypedDict):
    """Read by Cohere's clients; nothing is billed."""

    search_units: int


class RankingMeta(TypedDict):
    """Read by Cohere's clients."""

    api_version: ApiVersion
    billed_units: BilledUnits


class RankedList(TypedDict):
    """Documents, the most relevant first."""

    id: str
    object: Literal["list"]
    model: str
    scored_by: ScoredBy
    results: list[RankedDocument]
    usage: InputUsage
    meta: RankingMeta


class Score(TypedDict):
    """How well one pair of texts goes together."""

    index: int
    object: Literal["score"]
    score: float


class ScoreList(TypedDict):
    """A score for each pair, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    scored_by: ScoredBy
    data: list[Score]
    usage: InputUsage
