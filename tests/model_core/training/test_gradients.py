"""What the modules' gradients are: those of finite differences, and those of transformers' modules.

Loss and first steps of a tiny BERT and a tiny Llama, under the same optimiser, agree with theirs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import BertForMaskedLM, LlamaForCausalLM

from model_core.attention import Attend, Explicit, Fused, Padded
from model_core.config import (
    Activation,
    AttentionConfig,
    BucketedBias,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    RotaryConfig,
    StackConfig,
    TransformerConfig,
)
from model_core.training.loop import make_optimizer
from model_core.training.recipes.causal_lm import next_token_loss, next_tokens
from model_core.training.recipes.masked_lm import NOT_ASKED, Puzzle, hidden_tokens, summed_loss
from model_core.training.run_files import read_run
from model_core.training.runs import CausalLM, MaskedLM, OptimizerSection
from model_core.training.starting_point import Start, Wanted, start
from model_core.training.vocabulary import READING, WRITING
from model_core.transformer import Transformer
from tests.support.checkpoints import (
    VOCAB,
    draw_widely,
    tiny_bert_config,
    tiny_llama_config,
    write_tokenizer,
)

DIM, HEADS, TOKENS = 8, 2, 4
ATTENTION = AttentionConfig(HEADS, HEADS, DIM // HEADS, bias=True, output_bias=True)
FEED_FORWARD = FeedForwardConfig(6, Activation.GELU, gated=False, bias=True)
ENCODER = StackConfig(
    embedding=EmbeddingConfig(7, PositionKind.LEARNED, max_positions=6, norm=True),
    attention=(ATTENTION,),
    feed_forward=FEED_FORWARD,
    placement=NormPlacement.POST,
    final_norm=False,
    relative=BucketedBias(4, 8),
)
LLAMA = StackConfig(
    embedding=EmbeddingConfig(7, PositionKind.NONE, max_positions=6),
    attention=(
        AttentionConfig(
            HEADS, 1, 4, bias=False, output_bias=False, causal=True,
            rotary=RotaryConfig(100.0, 4), head_norm=NormConfig(NormKind.RMS, 1e-6),
        ),
    ),
    feed_forward=FeedForwardConfig(6, Activation.SILU, gated=True, bias=False),
    placement=NormPlacement.PRE,
    final_norm=True,
)  # fmt: skip
SINES = EmbeddingConfig(7, PositionKind.SINUSOIDAL, max_positions=6, scale=DIM**0.5)
ORIGINAL = replace(ENCODER, embedding=SINES, relative=None)
LAYER_NORM = NormConfig(NormKind.LAYER, 1e-5)
SHAPES = {
    "encoder": TransformerConfig(DIM, LAYER_NORM, encoder=ENCODER),
    "decoder": TransformerConfig(DIM, NormConfig(NormKind.RMS, 1e-6), decoder=LLAMA),
    "encoder-decoder": TransformerConfig(
        DIM,
        LAYER_NORM,
        encoder=ORIGINAL,
        decoder=replace(
            ORIGINAL, attention=(replace(ATTENTION, causal=True),), cross_attention=ATTENTION
        ),
    ),
}


def hidden_of(model: Transformer, ids: Tensor) -> Tensor:
    """Hidden states of two rows, the second of which has a token less."""
    mask = torch.tensor([[True] * TOKENS, [True] * (TOKENS - 1) + [False]])
    layout = Padded.of(ids, mask)
    memory = model.encode(ids, layout) if model.encoder is not None else None
    if model.decoder is None:
        assert memory is not None
        return memory[mask]
    return model.decode(ids.flip(0), Padded.of(ids, mask, layout), memory)[mask]


class Hidden(nn.Module):
    def __init__(self, model: Transformer, ids: Tensor) -> None:
        super().__init__()
        self.model, self.ids = model, ids

    def forward(self) -> Tensor:
        return hidden_of(self.model, self.ids)


@pytest.mark.parametrize("attend", [Explicit(), Fused()], ids=["explicit", "fused"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_finite_differences(shape: str, attend: Attend):
    torch.manual_seed(0)
    module = Hidden(Transformer(SHAPES[shape], attend).double(), torch.randint(7, (2, TOKENS)))
    names, values = zip(*module.named_parameters(), strict=True)
    with torch.no_grad():
        for value in values:
            value.add_(torch.randn_like(value) * 0.3)
    weights = torch.randn_like(module())

    def weighed(*parameters: Tensor) -> Tensor:
        hidden = functional_call(module, dict(zip(names, parameters, strict=True)), ())
        return (hidden * weights).sum()

    assert torch.autograd.gradcheck(weighed, values, atol=1e-6, rtol=1e-5)


def begin(run_kind: Any, wanted: Wanted, folder: Path) -> Start:
    run = read_run(run_kind, None, {"model.source": str(folder), "data.train": "none"})
    return start(run, wanted, [], folder / "run", folder / "cache")


def first_steps(
    theirs: Any,
    their_loss: Callable[[Tensor], Tensor],
    begun: Start,
    our_loss: Callable[[Tensor], Tensor],
) -> tuple[list[float], list[float]]:
    """The losses of 20 steps of both, each on its own gradients."""
    section = OptimizerSection(learning_rate=1e-3, weight_decay=0.0)
    ours = begun.model
    found: tuple[list[float], list[float]] = ([], [])
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(1, VOCAB, (4, 12), generator=generator) for _ in range(2)] * 10
    pairs = ((ours, our_loss), (theirs, their_loss))
    for losses, (model, loss_of) in zip(found, pairs, strict=True):
        optimizer = make_optimizer(model, section)
        model.train()
        for batch in batches:
            optimizer.zero_grad()
            loss = loss_of(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return found


def test_twenty_steps_of_a_llama_agree_with_transformers(tmp_path: Path):
    theirs = draw_widely(LlamaForCausalLM(tiny_llama_config()))
    theirs.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    begun = begin(CausalLM, Wanted("language_model", WRITING), tmp_path)
    ours, expected = first_steps(
        theirs,
        lambda batch: theirs(input_ids=batch, labels=batch).loss,
        begun,
        lambda batch: (
            next_token_loss(next_tokens(begun, batch).logits, batch) / batch[:, 1:].numel()
        ),
    )
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours[-1] < ours[0] - 0.1


def test_twenty_steps_of_a_bert_agree_with_transformers(tmp_path: Path):
    config = tiny_bert_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    theirs = draw_widely(BertForMaskedLM(config))
    theirs.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    begun = begin(MaskedLM, Wanted("masked_lm", READING), tmp_path)
    hidden = torch.zeros(4, 12, dtype=torch.bool)
    hidden[:, 2::3] = True

    def puzzle(batch: Tensor) -> tuple[Tensor, Tensor]:
        return batch.masked_fill(hidden, 1), batch.masked_fill(~hidden, NOT_ASKED)

    def our_loss(batch: Tensor) -> Tensor:
        read, asked = puzzle(batch)
        found = Puzzle(read, asked)
        return summed_loss(hidden_tokens(begun, found).logits, found.targets) / hidden.sum()

    def their_loss(batch: Tensor) -> Tensor:
        read, asked = puzzle(batch)
        return theirs(input_ids=read, labels=asked).loss

    ours, expected = first_steps(theirs, their_loss, begun, our_loss)
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours[-1] < ours[0] - 0.1
