"""Beam search over tables of logits: against all texts there are, and what it promises."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.artifact import PLAIN, GenerationDefaults
from service.engines.beams import Beams, common_start, likeliest, log_softmax
from service.engines.search import Rules, Step
from service.messages import FinishReason, Floats, Sampling

END = 0
Model = Callable[[Sequence[int]], Floats]


def model(seed: int, vocab: int, scale: float = 2.0) -> Model:
    def logits(tokens: Sequence[int]) -> Floats:
        raw = np.random.default_rng([seed, *tokens]).standard_normal(vocab)
        return (raw * scale).astype(np.float32)

    return logits


def search(
    logits: Model, wanted: Sampling, own: GenerationDefaults = PLAIN
) -> tuple[list[int], list[Step], FinishReason]:
    """What a beam search says, its steps, and why it ended."""
    beams = Beams(Rules(wanted, [END], (), own))
    rows: list[list[int]] = [[]]
    steps: list[Step] = []
    while True:
        step = beams.advance(np.stack([logits(row) for row in rows]))
        steps.append(step)
        if step.reason is not None:
            return [token for each in steps for token in each.final], steps, step.reason
        rows = followed(rows, step)


def beams_after(steps: Sequence[Step]) -> list[list[int]]:
    rows: list[list[int]] = [[]]
    for step in steps:
        rows = followed(rows, step)
    return rows


def followed(rows: list[list[int]], step: Step) -> list[list[int]]:
    pairs = zip(step.parents, step.tokens, strict=True)
    return [[*rows[parent], token] for parent, token in pairs]


def score(logits: Model, tokens: Sequence[int], length_penalty: float) -> float:
    logprobs = [log_softmax(logits(tokens[:at])[None])[0, token] for at, token in enumerate(tokens)]
    return float(np.sum(logprobs)) / len(tokens) ** length_penalty


def every_text(vocab: int, longest: int) -> list[tuple[int, ...]]:
    words = range(1, vocab)
    ended = [
        (*text, END)
        for length in range(longest)
        for text in itertools.product(words, repeat=length)
    ]
    return ended + list(itertools.product(words, repeat=longest))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("seed", range(5))
def test_with_enough_beams_the_best_of_all_texts_is_found(seed: int, length_penalty: float) -> None:
    vocab, longest = 4, 4
    texts = every_text(vocab, longest)
    logits = model(seed, vocab)
    wanted = Sampling(longest, beams=len(texts), length_penalty=length_penalty)
    found, _, reason = search(logits, wanted)
    best = max(texts, key=lambda text: score(logits, text, length_penalty))
    assert tuple(found) == best
    assert reason is (FinishReason.STOP if best[-1] == END else FinishReason.LENGTH)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_one_beam_is_greedy(early_stopping: bool) -> None:
    logits = model(3, 12)
    found, _, _ = search(logits, Sampling(9, beams=1, early_stopping=early_stopping))
    tokens: list[int] = []
    while len(tokens) < 9 and END not in tokens:
        tokens.append(int(logits(tokens).argmax()))
    assert found == tokens


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    beams=st.integers(2, 5),
    longest=st.integers(1, 8),
    length_penalty=st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
    early_stopping=st.booleans(),
)
def test_what_was_sent_is_never_taken_back(
    seed: int, beams: int, longest: int, length_penalty: float, early_stopping: bool
) -> None:
    wanted = Sampling(
        longest, beams=beams, length_penalty=length_penalty, early_stopping=early_stopping
    )
    logits = model(seed, 6, scale=4.0)
    found, steps, reason = search(logits, wanted)
    assert 1 <= len(found) <= longest
    assert END not in found[:-1]
    assert (found[-1] == END) == (reason is FinishReason.STOP)
    assert reason is FinishReason.STOP or len(found) == longest
    for step in steps[:-1]:
        assert 1 <= len(step.parents) == len(step.tokens) <= beams
        assert END not in step.tokens
    # What came in pieces is one of the beams that lived before its last token.
    assert found[:-1] in beams_after(steps[: len(found) - 1])


def test_what_all_beams_agree_on_is_sent_before_the_end() -> None:
    def logits(tokens: Sequence[int]) -> Floats:
        raw = np.zeros(5, np.float32)
        raw[END] = -50 if len(tokens) < 6 else 50
        if len(tokens) % 2 == 0:
            raw[1 + len(tokens) // 2 % 3] = 40  # certain: the beams of before differ by 40
        return raw

    _, steps, _ = search(logits, Sampling(10, beams=2))
    assert any(step.final for step in steps[:-1])


def test_early_stopping_ends_with_the_first_texts_and_otherwise_better_ones_are_waited_for() -> (
    None
):
    def logits(tokens: Sequence[int]) -> Floats:
        raw = np.full(4, -20, np.float32)
        if tokens in ([], [1]):
            raw[[END, 1, 2]] = [0.0, 0.4, -0.5]
        elif tokens[:2] == [1, 1] and len(tokens) < 12:
            raw[1] = 20
        else:
            raw[END] = 20
        return raw

    wanted = Sampling(16, beams=2, length_penalty=1.0)
    patient, _, _ = search(logits, wanted)
    hasty, steps, _ = search(logits, replace(wanted, early_stopping=True))
    assert patient == [1] * 12 + [END], "certain tokens raise the mean"
    assert len(steps) < 4
    assert hasty != patient


def test_forced_and_suppressed_tokens_hold_in_every_beam() -> None:
    own = GenerationDefaults(forced_first=3, forced_last=END, suppressed=(5,))
    bare = model(1, 8)

    def logits(tokens: Sequence[int]) -> Floats:
        raw = bare(tokens).copy()
        raw[5], raw[END] = 30, -30
        return raw

    found, steps, reason = search(logits, Sampling(6, beams=3), own)
    assert found[0] == 3
    assert found[-1] == END
    assert len(found) == 6
    assert reason is FinishReason.STOP
    assert list(steps[0].tokens) == [3], "one row, not three equal ones"
    assert all(5 not in step.tokens for step in steps)


def test_ignoring_the_end_token_and_a_least_length_hold_in_every_beam() -> None:
    def logits(tokens: Sequence[int]) -> Floats:
        raw = model(2, 8)(tokens).copy()
        raw[END] = 30
        return raw

    found, _, reason = search(logits, Sampling(6, beams=3, ignore_eos=True))
    assert reason is FinishReason.LENGTH
    assert len(found) == 6
    found, _, _ = search(logits, Sampling(6, beams=3, min_tokens=4))
    assert len(found) == 5
    assert found.index(END) == 4


def test_a_repetition_penalty_counts_the_tokens_of_its_own_beam() -> None:
    def logits(tokens: Sequence[int]) -> Floats:
        return np.array([-9, 3.0, 2.9, 2.8, 2.7, 2.6], np.float32)

    wanted = Sampling(5, beams=2, repetition_penalty=2.0, ignore_eos=True)
    found, _, _ = search(logits, wanted)
    assert sorted(found) == [1, 2, 3, 4, 5]


def test_the_likeliest_places_are_sorted_and_equals_go_by_place() -> None:
    scores = np.array([1.0, 3.0, 3.0, -np.inf, 3.0], np.float32)
    assert likeliest(scores, 2).tolist() == [1, 2]
    assert likeliest(scores, 9).tolist() == [1, 2, 4, 0]
    assert likeliest(np.full(3, -np.inf, np.float32), 2).tolist() == [0]


def test_common_starts() -> None:
    assert common_start([(1, 2, 3), (1, 2), (1, 2, 4)]) == 2
    assert common_start([(1,), (2,)]) == 0
    assert common_start([(1, 2)]) == 2
