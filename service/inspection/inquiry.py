"""What may be asked of a model that is looked into, and what of it makes sense for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from export.artifact import Inspection, Site
from service.errors import InvalidRequest
from service.messages import Task


class Part(StrEnum):
    """One thing that an answer may include."""

    PATTERN = "pattern"  # attention weights: each query's sum to 1
    SCORES = "scores"  # what they are the softmax of
    Q = "q"
    K = "k"
    V = "v"
    BIAS = "bias"  # what relative positions add to the scores
    VALUE_NORMS = "value_norms"
    RESIDUAL_NORMS = "residual_norms"
    ROLLOUT = "rollout"  # which tokens each state mixes, if attention were all that mixes
    NEXT_TOKENS = "next_tokens"
    LOGIT_LENS = "logit_lens"
    POOLED = "pooled"
    SIMILARITY = "similarity"
    CLASS_SCORES = "class_scores"
    ATTRIBUTIONS = "attributions"


DEFAULT_TOP = 5
"""How many next tokens each position gets."""

OF_ATTENTION = (Part.PATTERN, Part.SCORES, Part.Q, Part.K, Part.V, Part.BIAS, Part.VALUE_NORMS)
"""What every layer and head has."""

OF_TASK: Mapping[Task, tuple[Part, ...]] = MappingProxyType(
    {
        Task.EMBED: (Part.POOLED, Part.SIMILARITY),
        Task.CLASSIFY: (Part.CLASS_SCORES, Part.ATTRIBUTIONS),
        Task.GENERATE: (Part.NEXT_TOKENS, Part.LOGIT_LENS),
    }
)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is asked. `layers`, `heads` and `positions` None are all of them; `positions` are those
    of the tokens whose next ones are asked for, of the target where there is one, and None there is
    the last for `next_tokens` and all for `logit_lens`; `top` is how many tokens each gets.
    `continuation` are token ids that follow all else, as a generation wrote them: their text cut
    anew might be other tokens. `label` is the class whose probability attributions explain; None:
    the likeliest.
    """

    text: str
    second: str | None = None
    include: tuple[Part, ...] = (Part.PATTERN,)
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    top: int = DEFAULT_TOP
    continuation: tuple[int, ...] = ()
    label: str | None = None

    @property
    def of_attention(self) -> tuple[Part, ...]:
        """Those parts that each layer and head has."""
        return tuple(part for part in OF_ATTENTION if part in self.include)


def require_fitting(inquiry: Inquiry, task: Task, inspection: Inspection, model: str) -> None:
    """Raises `InvalidRequest`, naming the field, unless the model has what is asked for."""
    accepted = (*OF_ATTENTION, Part.RESIDUAL_NORMS, Part.ROLLOUT, *OF_TASK.get(task, ()))
    for part in inquiry.include:
        if part not in accepted:
            raise InvalidRequest(
                f"include: {part} is not for a model that does {task}; model {model!r} has: "
                f"{', '.join(accepted)}",
                field="include",
            )
    if Part.BIAS in inquiry.include and not any(site.bias for site in inspection.sites):
        raise InvalidRequest(
            f"include: model {model!r} adds no bias to its scores; leave {Part.BIAS} out",
            field="include",
        )
    if inquiry.continuation and task is not Task.GENERATE:
        raise InvalidRequest(
            f"continuation: a model that does {task} writes nothing; leave it out",
            field="continuation",
        )
    layers = max(site.layer for site in inspection.sites) + 1
    heads = max(site.heads for site in inspection.sites)
    require_below(inquiry.layers, layers, "layers", model)
    require_below(inquiry.heads, heads, "heads", model)


def require_below(chosen: Sequence[int] | None, count: int, field: str, model: str) -> None:
    """Raises `InvalidRequest` for the first number that isn't 0 to `count` - 1, or comes again."""
    for place, number in enumerate(chosen or ()):
        if not 0 <= number < count:
            raise InvalidRequest(
                f"{field}[{place}]: {number} is not accepted; model {model!r} has "
                f"{field} 0 to {count - 1}",
                field=f"{field}[{place}]",
            )
    if chosen is not None and len(set(chosen)) < len(chosen):
        raise InvalidRequest(f"{field} has a number twice; name each once", field=field)


def chosen_sites(inquiry: Inquiry, inspection: Inspection) -> list[Site]:
    """The attentions of the layers that are asked for."""
    wanted = inquiry.layers
    return [site for site in inspection.sites if wanted is None or site.layer in wanted]


def chosen_heads(inquiry: Inquiry, site: Site) -> list[int]:
    """The heads of an attention that are asked for, as far as it has them."""
    if inquiry.heads is None:
        return list(range(site.heads))
    return [head for head in inquiry.heads if head < site.heads]
