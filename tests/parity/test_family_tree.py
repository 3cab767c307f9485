"""The family tree in PyTorch, equal to the reference: every case of `tests/support/families`."""

from pathlib import Path

import pytest

from model_core.attention import Fused, attend_by
from tests.support.families import CASES, Case
from tests.support.families.parity import (
    largest_weights,
    load_ours,
    our_greedy,
    our_hidden,
    parity_error,
    reference_greedy,
    relative_error,
    round_trip_error,
)

SEEDS = (0, 1, 2)
TOLERANCE = 1e-5  # a few float32 roundings, in another order, through a few layers
FUSED_TOLERANCE = 5e-5  # a kernel that sums in blocks, under scores as sharp as these

HEADS = [
    pytest.param(case, head, id=f"{case}, {head or 'hidden states'}")
    for case in CASES
    for head in (None, *case.heads)
]
GENERATORS = [
    pytest.param(case, head, id=str(case))
    for case in CASES
    for head in ("language_model", "seq2seq")
    if head in case.heads
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("case", "head"), HEADS)
def test_outputs_equal_the_reference(
    case: Case, head: str | None, seed: int, tmp_path: Path
) -> None:
    assert parity_error(case, head, seed, tmp_path) <= TOLERANCE


@pytest.mark.parametrize(("case", "head"), HEADS)
def test_what_is_saved_loads_in_the_reference(case: Case, head: str | None, tmp_path: Path) -> None:
    assert round_trip_error(case, head, 0, tmp_path) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_fused_kernel_agrees_with_explicit_attention(case: Case, tmp_path: Path) -> None:
    ours = load_ours(case.reference(), tmp_path, [])
    texts = case.token_ids()
    explicit = our_hidden(ours, texts)
    attend_by(ours.model, Fused())
    assert relative_error(our_hidden(ours, texts), explicit) <= FUSED_TOLERANCE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_is_far_from_uniform(case: Case, seed: int, tmp_path: Path) -> None:
    """Else a wrong mask or position would hardly show in the tests above."""
    assert largest_weights(case, seed, tmp_path) >= 0.5


@pytest.mark.parametrize(("case", "head"), GENERATORS)
def test_greedy_tokens_equal_the_reference(case: Case, head: str, tmp_path: Path) -> None:
    reference = case.reference(head, 0)
    ours = load_ours(reference, tmp_path, [head])
    prompt = case.token_ids(0)[0]
    assert our_greedy(ours, head, prompt, 32) == reference_greedy(reference, prompt, 32)
