"""What is seen inside is what was computed, in every family, and what transformers says it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertModel

from model_core.attention import Explicit, Fused, Padded, attend_by, within_reach
from model_core.checkpoints.load import Loaded
from model_core.heads import LanguageModelHead, MaskedLanguageModelHead
from model_core.inspection import Attended, Inspector, Trace, logit_lens
from tests.support.families import CASES, Case
from tests.support.families.parity import load_ours, our_hidden, pad, relative_error
from tests.support.neuron_view import neuron_view

# Sums of a few dozen products in float32, taken once more.
ROUNDING = 2e-5
REFERENCE = 1e-4  # of the values' scale: float32 in another program
BERT_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
)  # fmt: skip


def writer_of(case: Case) -> str | None:
    """The head with an unembedding, if the family's case has one."""
    return next((h for h in case.heads if h in ("language_model", "seq2seq", "masked_lm")), None)


def loaded(case: Case, folder: Path, head: str | None = None) -> Loaded:
    return load_ours(case.reference(head), folder, [head] if head else [])


@torch.inference_mode()
def traces(ours: Loaded, texts: list[Tensor]) -> list[Trace]:
    """Of each stack, encoder first, on the batch that the parity tests read."""
    transformer = ours.model.transformer
    inspector = Inspector(transformer)
    rows, mask = pad(texts)
    layout = Padded.of(rows, mask)
    stacks = [stack for stack in (transformer.encoder, transformer.decoder) if stack is not None]
    found = [inspector.trace(stacks[0], rows, layout)]
    if len(stacks) == 2:
        targets, _ = pad([text.flip(0) for text in texts])
        target_layout = Padded.of(targets, mask, layout)
        found.append(inspector.trace(stacks[1], targets, target_layout, memory=found[0].output))
    return found


def spread(seen: Attended, x: Tensor) -> Tensor:
    """Keys or values [B, G, K, …] for each query head."""
    return x.repeat_interleave(seen.site.config.heads // seen.site.config.kv_heads, dim=1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scores_are_products_and_patterns_are_their_softmax(case: Case, tmp_path: Path) -> None:
    ours, texts = loaded(case, tmp_path), case.token_ids()
    _, mask = pad(texts)
    for trace in traces(ours, texts):
        assert trace.attended
        for seen in trace.attended:
            config = seen.site.config
            scores = seen.q @ spread(seen, seen.k).transpose(-2, -1) * config.score_scale
            if config.score_cap is not None:
                scores = config.score_cap * torch.tanh(scores / config.score_cap)
            if seen.bias is not None:
                scores = scores + seen.bias
            assert relative_error(seen.scores, scores) <= ROUNDING
            places = torch.arange(mask.shape[1])
            reach = within_reach(config, (places - places[:, None])[None])
            allowed = mask[:, None, None, :] if reach is None else mask[:, None, None] & reach
            hidden = seen.scores.masked_fill(~allowed, -torch.inf)
            expected = hidden.softmax(-1).masked_fill(~allowed, 0.0)
            torch.testing.assert_close(seen.pattern, expected, rtol=ROUNDING, atol=ROUNDING)
            torch.testing.assert_close(seen.value_norms, torch.linalg.vector_norm(seen.v, dim=-1))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_looking_changes_nothing(case: Case, tmp_path: Path) -> None:
    head = writer_of(case)
    ours, texts = loaded(case, tmp_path, head), case.token_ids()
    _, mask = pad(texts)
    found = traces(ours, texts)[-1]
    stack = ours.model.transformer.decoder or ours.model.transformer.encoder
    assert stack is not None
    for attend in (Explicit(), Fused()):
        attend_by(ours.model.transformer, attend)
        expected = our_hidden(ours, texts)
        assert relative_error(found.output[mask], expected) <= 1e-4
    assert len(found.states) == len(found.residual_norms) == stack.config.layers + 1
    if head is not None:
        module = ours.model.heads[head]
        assert isinstance(module, LanguageModelHead | MaskedLanguageModelHead)
        with torch.inference_mode():
            last = logit_lens(stack, module, found.states[-1])
            assert torch.equal(last, module(found.output))


def test_the_sites_say_what_an_attention_is(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "t5")
    encoder, decoder = traces(loaded(case, tmp_path), case.token_ids())
    assert [seen.site.cross for seen in decoder.attended[:2]] == [False, True]
    assert encoder.attended[0].bias is not None
    assert decoder.attended[1].bias is None, "cross-attention has no positions"
    assert decoder.attended[0].site.name == "decoder.blocks.0.attention"


# --- the same numbers from BertViz and from transformers ------------------------------------


def case_named(family: str) -> Case:
    return next(case for case in CASES if case.family == family)


def one_text(case: Case) -> list[Tensor]:
    return case.token_ids(lengths=(11,))


@torch.inference_mode()
def test_a_berts_queries_keys_and_patterns_are_what_bertviz_draws(tmp_path: Path) -> None:
    case = case_named("bert")
    bert = case.reference()
    assert isinstance(bert, BertModel)
    reference: Any = bert
    (text,) = texts = one_text(case)
    (trace,) = traces(load_ours(reference, tmp_path, []), texts)
    fields = {name: getattr(reference.config, name) for name in BERT_FIELDS}
    fields["vocab_size_or_config_json_file"] = reference.config.vocab_size
    drawn = neuron_view(fields, reference.state_dict(), text.tolist())
    read = reference(text[None], output_hidden_states=True).hidden_states
    assert len(trace.attended) == len(drawn["attn"]) == reference.config.num_hidden_layers
    for layer, seen in enumerate(trace.attended):
        assert relative_error(seen.q[0], drawn["queries"][layer]) <= REFERENCE
        assert relative_error(seen.k[0], drawn["keys"][layer]) <= REFERENCE
        torch.testing.assert_close(seen.pattern[0], drawn["attn"][layer], rtol=0, atol=REFERENCE)
        assert relative_error(trace.states[layer], read[layer]) <= REFERENCE


@pytest.mark.parametrize("family", ["llama", "t5", "deberta-v2", "gemma2", "mistral"])
@torch.inference_mode()
def test_patterns_are_the_references_attentions(family: str, tmp_path: Path) -> None:
    case = case_named(family)
    reference: Any = case.reference()
    texts = one_text(case)
    found = traces(load_ours(reference, tmp_path, []), texts)
    more: dict[str, Any] = {}
    if reference.config.is_encoder_decoder:
        more["decoder_input_ids"] = texts[0].flip(0)[None]
    output = reference(texts[0][None], output_attentions=True, **more)
    if len(found) == 1:
        expected = [output.attentions]
    else:
        pairs = zip(output.decoder_attentions, output.cross_attentions, strict=True)
        expected = [output.encoder_attentions, [x for pair in pairs for x in pair]]
    for trace, attentions in zip(found, expected, strict=True):
        for seen, attention in zip(trace.attended, attentions, strict=True):
            torch.testing.assert_close(seen.pattern, attention, rtol=REFERENCE, atol=REFERENCE)
