"""Looking inside: what every attention of a Transformer saw, and the stream between its blocks.

The numbers are those that the computation itself used: queries and keys after rotary turns and
norms within heads, scores with what relative positions add. Letters of shapes as in
`attention.py`; L is the blocks of a stack, N the positions that are asked about.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from model_core.attention import AttentionSite, Explicit, Memory, Padded, attend_by
from model_core.blocks import Stack
from model_core.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Attended:
    """What one attention saw and what it made of it.

    q [B, H, Q, D], k and v [B, G, K, D], scores and pattern [B, H, Q, K], bias [B or 1, H, Q, K].
    softmax(scores) = pattern over the keys that a query may look at, and 0 elsewhere;
    q · k · `site.config.score_scale`, capped where the model caps, + bias = scores. Query head h
    reads key-value head h · G // H. `bias` is None where positions add nothing to the scores.
    """

    site: AttentionSite
    q: Tensor
    k: Tensor
    v: Tensor
    scores: Tensor
    pattern: Tensor
    bias: Tensor | None

    @property
    def value_norms(self) -> Tensor:
        """How long each value is [B, G, K]: a weight on a value near 0 moves nothing."""
        return norms(self.v)


@dataclass(frozen=True, slots=True)
class Trace:
    """One run of a stack: its residual stream (L + 1 states [B, S, E]: the embeddings, then one
    after each block), its output [B, S, E], and its attentions in the order in which they ran."""

    states: tuple[Tensor, ...]
    output: Tensor
    attended: tuple[Attended, ...]

    @property
    def residual_norms(self) -> tuple[Tensor, ...]:
        """The length of the stream at every token, [B, S] each."""
        return tuple(norms(state) for state in self.states)


class Inspector:
    """Traces the stacks of a Transformer, every attention of which is tapped from now on.

    Not for concurrent use: the tap belongs to the model.
    """

    def __init__(self, transformer: Transformer) -> None:
        self._seen: list[Attended] = []
        attend_by(transformer, Explicit(self._keep))

    def trace(
        self,
        stack: Stack,
        token_ids: Tensor,
        layout: Padded,
        token_type_ids: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Trace:
        """Run padded rows [B, S] through a stack of the model and keep what is seen."""
        self._seen = []
        states = tuple(stack.states(token_ids, layout, token_type_ids, memory))
        return Trace(states, stack.final_norm(states[-1]), tuple(self._seen))

    def _keep(self, site: AttentionSite, seen: dict[str, Tensor]) -> None:
        q, k, v = seen["q"], seen["k"], seen["v"]
        scores, pattern = seen["scores"], seen["weights"]
        self._seen.append(Attended(site, q, k, v, scores, pattern, seen.get("bias")))


def logit_lens(stack: Stack, head: nn.Module, state: Tensor) -> Tensor:
    """Logits [..., V] of a state [..., E] read as if it were the last: final norm, then the head
    (nostalgebraist 2020, "interpreting GPT: the logit lens")."""
    return head(stack.final_norm(state))


def norms(x: Tensor) -> Tensor:
    """Lengths [...] of vectors [..., D]."""
    return x.square().sum(-1).sqrt()
