"""The answer of `/v1/inspect`."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Probability = Annotated[float, Field(ge=0, le=1)]


class InspectedToken(TypedDict):
    """A token: its own text, its part of the text it is `of` (0 or 1) and its place there.

    What frames a text is of none.
    """

    id: int
    token: str
    text: str
    special: bool
    start: int | None
    stop: int | None
    of: int | None


class InspectedSequence(TypedDict):
    """Tokens that are read as one."""

    tokens: list[InspectedToken]


class InspectedAttention(TypedDict):
    """One attention: the sequence `queries` looks at `keys`. Its tensors are `name`.pattern and so
    on, a row for each of `heads` (of k, v and value_norms, for each of `kv_heads`, of which each
    head reads the one at `kv_head_of`)."""

    name: str
    stack: Literal["encoder", "decoder"]
    kind: Literal["self", "cross"]
    layer: int
    queries: int
    keys: int
    heads: list[int]
    kv_heads: list[int]
    kv_head_of: list[int]
    scale: float
    cap: float | None
    bias: bool
    causal: bool
    window: int | None


class InspectedStack(TypedDict):
    """How large a stack is."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int


class Distance(TypedDict):
    """How far numbers are from those they are held to."""

    largest_error: float
    smallest_cosine: float
    top1_agreement: NotRequired[float]


class ServedGraph(TypedDict):
    """What is served, and how far it is from what is shown, on golden inputs."""

    precision: str
    distance: Distance


class InspectedGraph(TypedDict):
    """The graph that the numbers come from, and how far it is from PyTorch."""

    precision: str
    parity: Distance
    served: ServedGraph


class LikelyToken(TypedDict):
    """A token that may come next: the model's own number for it, and what that makes likely. One
    that `ends` is where a generation stops."""

    id: int
    text: str
    logit: float
    probability: Probability
    special: bool
    ends: bool


class OtherTokens(TypedDict):
    """The tokens that aren't listed: how many, how likely together, and for each of `temperatures`
    log Σ exp(logit / temperature) over them, so that the listed ones' probabilities at that
    temperature can be computed."""

    tokens: int
    probability: Probability
    temperatures: list[float]
    log_sums: list[float]


class NextTokens(TypedDict):
    """The likeliest tokens after one position."""

    position: int
    tokens: list[LikelyToken]
    rest: OtherTokens


class LogitLens(TypedDict):
    """Which states and positions the tensors logit_lens.ids and .probabilities have (state 0 is the
    embeddings, n what layer n - 1 leaves), and the tokens' texts by id."""

    states: list[int]
    positions: list[int]
    texts: dict[str, str]


class ClassScore(TypedDict):
    """One class: the head's own score, and what it makes likely."""

    label: str
    score: float
    probability: float


class Attributions(TypedDict):
    """What the probability of a class loses without each token; null for what frames the text. The
    tensor `occluded` has every class's probability without each of `positions`."""

    method: str
    label: str
    probability: float
    drops: list[float | None]
    positions: list[int]


class InspectionAnswer(TypedDict):
    """What goes on inside a model while it reads. `tensors` are nested lists by name."""

    object: Literal["inspection"]
    model: str
    task: str
    graph: InspectedGraph
    stacks: dict[str, InspectedStack]
    texts: list[str]
    sequences: list[InspectedSequence]
    attentions: list[InspectedAttention]
    next_tokens: NotRequired[list[NextTokens]]
    logit_lens: NotRequired[LogitLens]
    cosine: NotRequired[float]
    class_scores: NotRequired[list[ClassScore]]
    attributions: NotRequired[Attributions]
    tensors: dict[str, list[Any]]
