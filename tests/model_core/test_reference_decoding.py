"""The reference decoding: transformers' `generate`, token for token, on tiny random models."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_core.reference_decoding import NextLogits, Rules, beam_search, draw, greedy, sampled
from tests.support.families import CASES
from tests.support.families.parity import load_ours, our_next_logits

FAMILIES = ("BART", "T5", "Marian")
STEPS = 12
GAIN = 0.8  # flat enough for several continuations to be nearly as likely


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Products this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decoder(name: str, seed: int, folder: Path) -> tuple[Any, NextLogits, Tensor, int]:
    """The reference, our next logits of the same weights, the source and the start token."""
    case = replace(next(case for case in CASES if case.name == name), gain=GAIN)
    reference: Any = case.reference("seq2seq", seed)
    source = case.token_ids(seed)[0]
    next_logits = our_next_logits(load_ours(reference, folder, ["seq2seq"]), "seq2seq", source)
    remembered = cache(next_logits)
    for setting in ("eos_token_id", "forced_eos_token_id"):
        setattr(reference.generation_config, setting, None)
    start = reference.config.decoder_start_token_id
    return reference, lambda token_ids: remembered(tuple(token_ids)), source, start


def generated(reference: Any, source: Tensor, **settings: Any) -> list[int]:
    """What the reference generates after the start token, without what it fills rows with."""
    found = reference.generate(
        source[None], attention_mask=torch.ones_like(source[None]), do_sample=False,
        max_new_tokens=STEPS, **settings,
    )[0, 1:].tolist()  # fmt: skip
    ends = settings["eos_token_id"]
    length = next((at + 1 for at, token in enumerate(found) if token in ends), len(found))
    return found[:length]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_beam_search_finds_what_the_reference_finds(
    family: str, seed: int, tmp_path: Path
) -> None:
    reference, next_logits, source, start = decoder(family, seed, tmp_path)
    # Ends that the model likes, so that beams end early and late.
    freely = greedy(next_logits, [start], STEPS)
    ends = sorted({freely[STEPS // 2], freely[-1]})
    texts: set[tuple[int, ...]] = set()
    for beams, length_penalty, early_stopping in product((2, 3, 4), (0.6, 1.0, 2.0), (False, True)):
        how: dict[str, Any] = {"length_penalty": length_penalty, "early_stopping": early_stopping}
        found = beam_search(next_logits, [start], STEPS, beams, Rules(ends), **how)
        settings = {"num_beams": beams, "eos_token_id": ends, **how}
        assert found == generated(reference, source, **settings), settings
        texts.add(tuple(found))
    assert len(texts) > 1, "none of the settings makes a difference"


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("renormalized", [False, True])
def test_forced_and_suppressed_tokens_are_those_of_the_reference(
    beams: int, renormalized: bool, tmp_path: Path
) -> None:
    reference, next_logits, source, start = decoder("BART", 0, tmp_path)
    freely = greedy(next_logits, [start], STEPS)
    suppressed = tuple(sorted(set(freely[1:])))
    rules = Rules((58,), 9, 58, suppressed, renormalized)
    found = (
        greedy(next_logits, [start], STEPS, rules)
        if beams == 1
        else beam_search(next_logits, [start], STEPS, beams, rules)
    )
    expected = generated(
        reference, source, num_beams=beams, eos_token_id=[58], forced_bos_token_id=9,
        forced_eos_token_id=58, bad_words_ids=[[token] for token in suppressed],
        renormalize_logits=renormalized,
    )  # fmt: skip
    assert found == expected
    assert found[0] == 9
    assert found[-1] == 58
    assert not set(found) & set(suppressed)


def table(*rows: Sequence[float]) -> NextLogits:
    """Next logits that depend on the number of tokens alone."""
    return lambda token_ids: torch.tensor(rows[len(token_ids) - 1])


def test_decoding_stops_behind_an_end() -> None:
    logits = table([0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    assert greedy(logits, [0], 3) == [1, 2, 0]
    assert greedy(logits, [0], 3, Rules(ends=(2,))) == [1, 2]
    assert sampled(logits, [0], [0.0, 0.99, 0.0], Rules(ends=(2,))) == [0, 2]


def test_a_number_draws_the_token_whose_share_it_falls_in() -> None:
    scores = torch.tensor([0.2, 0.5, 0.3]).log()
    assert [draw(scores, u) for u in (0.0, 0.19, 0.21, 0.69, 0.71, 0.999)] == [0, 0, 1, 1, 2, 2]


def test_filters_keep_the_likeliest() -> None:
    scores = torch.tensor([0.2, 0.5, 0.3]).log()
    assert {draw(scores, u / 10, top_k=1) for u in range(10)} == {1}
    # 0.5 alone is less than 0.6: the next is needed as well.
    assert [draw(scores, u, top_p=0.6) for u in (0.0, 0.62, 0.63, 0.99)] == [1, 1, 2, 2]


def test_what_is_drawn_is_as_frequent_as_it_is_likely() -> None:
    numbers = [(step + 0.5) / 1000 for step in range(1000)]
    found = sampled(lambda _: torch.tensor([0.1, 0.6, 0.3]).log(), [0], numbers, temperature=1.0)
    assert [found.count(token) for token in range(3)] == [100, 600, 300]
