"""Ours against the reference: the same checkpoint, the same tokens, the largest difference.

Errors are relative to the largest magnitude of the reference.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model_core.attention import Attend, AttentionSite, Explicit, Padded
from model_core.checkpoints.load import Loaded, load
from model_core.checkpoints.save import save
from model_core.checkpoints.sources import locate
from model_core.heads import Classifier
from model_core.pooling import pool
from model_core.reference_decoding import NextLogits, greedy
from tests.support.families.case import Case


def load_ours(
    reference: PreTrainedModel, folder: Path, heads: Sequence[str], attend: Attend | None = None
) -> Loaded:
    """Our model of the checkpoint that the reference saves."""
    reference.save_pretrained(folder)
    return load(locate(str(folder), cache=folder), attend or Explicit(), heads)


def pad(texts: Sequence[Tensor], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Right-padded rows [B, S], and which of their tokens are real."""
    rows = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(text) for text in texts])
    return rows, torch.arange(rows.shape[1]) < lengths[:, None]


def shifted(texts: Sequence[Tensor], start: int) -> list[Tensor]:
    """What a decoder reads of texts that it classifies: all but the last token, after `start`."""
    return [torch.cat((torch.tensor([start]), text[:-1])) for text in texts]


def our_hidden(
    ours: Loaded, texts: Sequence[Tensor], targets: Sequence[Tensor] | None = None
) -> Tensor:
    """Our hidden states of all real tokens [T, E]; of the decoder, where there are two stacks.

    The target of an encoder-decoder is the source's tokens, reversed, unless `targets` are given,
    which are as long as the texts.
    """
    rows, mask = pad(texts)
    transformer, layout = ours.model.transformer, Padded.of(rows, mask)
    with torch.inference_mode():
        if transformer.decoder is None:
            return transformer.encode(rows, layout)[mask]
        if transformer.encoder is None:
            return transformer.decode(rows, layout)[mask]
        memory = transformer.encode(rows, layout)
        target_rows, _ = pad(targets or [text.flip(0) for text in texts])
        return transformer.decode(target_rows, Padded.of(target_rows, mask, layout), memory)[mask]


def reference_output(reference: PreTrainedModel, texts: Sequence[Tensor], pad_id: int) -> Tensor:
    """What the reference gives for the batch: hidden states, or a head's logits.

    An encoder-decoder that classifies makes its target of the source itself.
    """
    rows, mask = pad(texts, pad_id)
    more = {}
    if reference.config.is_encoder_decoder and not classifies_targets(reference):
        targets, _ = pad([text.flip(0) for text in texts], pad_id)
        more = {"decoder_input_ids": targets, "decoder_attention_mask": mask.long()}
    with torch.inference_mode():
        output = reference(input_ids=rows, attention_mask=mask.long(), **more)
    result = output.logits if "logits" in output else output.last_hidden_state
    return result[mask] if result.dim() == 3 else result


def our_output(ours: Loaded, head: str | None, texts: Sequence[Tensor]) -> Tensor:
    """The same of ours."""
    module = None if head is None else ours.model.heads[head]
    is_pooled = isinstance(module, Classifier) and module.pooling is not None
    start = ours.description.values.get("decoder_start_token_id") if is_pooled else None
    hidden = our_hidden(ours, texts, None if start is None else shifted(texts, start))
    if module is None:
        return hidden
    with torch.inference_mode():
        if isinstance(module, Classifier) and module.pooling is not None:
            lengths = torch.tensor([len(text) for text in texts])
            rows, _ = pad(hidden.split(lengths.tolist()))
            hidden = pool(rows, lengths, module.pooling)
        return module(hidden)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


def parity_error(case: Case, head: str | None, seed: int, folder: Path) -> float:
    """How far ours is from the reference, with the weights and the texts of `seed`."""
    reference = case.reference(head, seed)
    ours = load_ours(reference, folder, [head] if head else [])
    texts = texts_for(case, reference, seed)
    expected = reference_output(reference, texts, pad_id_of(reference))
    return relative_error(our_output(ours, head, texts), expected)


def classifies_targets(reference: PreTrainedModel) -> bool:
    """Whether it is an encoder-decoder that classifies the decoder's last hidden state."""
    return hasattr(reference, "classification_head")


def texts_for(case: Case, reference: PreTrainedModel, seed: int) -> list[Tensor]:
    """The texts of a case; they end with the end token where the reference looks for it."""
    texts = case.token_ids(seed)
    if classifies_targets(reference):
        for text in texts:
            text[-1] = reference.config.eos_token_id
    return texts


def pad_id_of(reference: PreTrainedModel) -> int:
    """What the reference fills rows with."""
    return getattr(reference.config, "pad_token_id", None) or 0


def round_trip_error(case: Case, head: str | None, seed: int, folder: Path) -> float:
    """How far the reference that loads what we save is from the one that we loaded."""
    reference = case.reference(head, seed)
    theirs, again = folder / "theirs", folder / "ours"
    again.mkdir(parents=True)
    ours = load_ours(reference, theirs, [head] if head else [])
    save(ours.model, ours.description, again)
    found = type(reference).from_pretrained(again, attn_implementation="eager").eval()
    texts, pad_id = texts_for(case, reference, seed), pad_id_of(reference)
    expected = reference_output(reference, texts, pad_id)
    return relative_error(reference_output(found, texts, pad_id), expected)


def largest_weights(case: Case, seed: int, folder: Path) -> float:
    """The mean over all heads and queries of the largest attention weight.

    Of queries that have several keys to look at.
    """
    largest: list[Tensor] = []

    def tap(site: AttentionSite, seen: dict[str, Tensor]) -> None:
        weights = seen["weights"]
        several = (weights > 0).sum(-1) > 1
        largest.append(weights.amax(-1)[several])

    ours = load_ours(case.reference(None, seed), folder, [], Explicit(tap))
    our_hidden(ours, case.token_ids(seed))
    return float(torch.cat(largest).mean())


def our_next_logits(ours: Loaded, head: str, source: Tensor | None = None) -> NextLogits:
    """Ours as what the reference decoding calls; the `source` is an encoder-decoder's."""
    transformer, module = ours.model.transformer, ours.model.heads[head]
    memory, memory_layout = None, None
    if source is not None:
        memory_layout = Padded.of(source[None])
        with torch.inference_mode():
            memory = transformer.encode(source[None], memory_layout)

    def next_logits(token_ids: Sequence[int]) -> Tensor:
        rows = torch.tensor([list(token_ids)])
        with torch.inference_mode():
            hidden = transformer.decode(rows, Padded.of(rows, memory=memory_layout), memory)
            return module(hidden[0, -1])

    return next_logits


def our_greedy(ours: Loaded, head: str, prompt: Tensor, steps: int) -> list[int]:
    """Our greedy continuation of a decoder's prompt, or of an encoder-decoder's start token.

    No token comes twice: tiny random models would say the same one for ever, which is easily
    equal. Nor does that of padding, which some references give a position of its own.
    """
    never = [ours.description.values.get("pad_token_id") or 0]
    prompt = prompt[:LONGEST_PROMPT]
    has_source = ours.model.transformer.encoder is not None
    start = [ours.description.values["decoder_start_token_id"]] if has_source else prompt.tolist()
    next_logits = our_next_logits(ours, head, prompt if has_source else None)

    def of_new_tokens(token_ids: Sequence[int]) -> Tensor:
        return next_logits(token_ids).index_fill(0, torch.tensor([*token_ids, *never]), -torch.inf)

    return greedy(of_new_tokens, start, steps)


LONGEST_PROMPT = 20
"""So that there are tokens left to say: `VOCAB` in all."""


def reference_greedy(reference: Any, prompt: Tensor, steps: int) -> list[int]:
    """The reference's. Without a cache: the keys in it keep the turn of a base that dynamic
    scaling has since changed. No token ends it, none is forced, and none comes twice, nor does
    that of padding."""
    prompt = prompt[:LONGEST_PROMPT]
    if reference.can_generate():
        for name in ("eos_token_id", "forced_eos_token_id"):
            setattr(reference.generation_config, name, None)
    found = reference.generate(
        prompt[None], do_sample=False, max_new_tokens=steps, no_repeat_ngram_size=1,
        suppress_tokens=[pad_id_of(reference)],
        attention_mask=torch.ones_like(prompt[None]), use_cache=False,
    )  # fmt: skip
    return found[0, 1 if reference.config.is_encoder_decoder else len(prompt) :].tolist()
