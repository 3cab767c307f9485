"""Tiny checkpoints through the whole pipeline, at every precision; then the invariants."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from export.artifact import Artifact, Precision
from export.catalogue import find_artifact, recipe
from export.pipeline import export
from export.session import CachedSession, Provider, Session, reproduces_golden
from service.engines.pooling import pack
from service.engines.slots import Slots
from tests.support.checkpoints import (
    VOCAB,
    draw_widely,
    save_tiny_bert,
    tiny_llama_config,
    write_tokenizer,
)
from tests.support.reports import silent

ROWS, CAPACITY = 4, 40
# Relative to the largest magnitude. fp32: another order of sums. fp16: 11 bits through two layers.
# int8: the same integers whatever the company; only attention, in float32, sums differently, and
# a unit of rounding may then fall to the other side: 1% of a row's largest activation.
TOLERANCE = {Precision.FP32: 1e-5, Precision.FP16: 2e-2, Precision.INT8: 3e-2}


@pytest.fixture(scope="module", params=list(Precision))
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, precision: Precision) -> Artifact:
    folder = tmp_path_factory.mktemp("bert")
    save_tiny_bert(folder)
    wanted = recipe(str(folder), precision, name="tiny")
    cache = folder.with_name(f"{folder.name}-cache")
    assert find_artifact(wanted, cache) is None
    made = export(wanted, cache, silent)
    assert find_artifact(wanted, cache) == made
    return Artifact.open(made)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, precision: Precision) -> Artifact:
    folder = tmp_path_factory.mktemp("llama")
    config = tiny_llama_config(hidden_size=64, max_position_embeddings=1024)
    draw_widely(LlamaForCausalLM(config)).save_pretrained(folder)
    write_tokenizer(folder)
    made = export(recipe(str(folder), precision, name="tiny"), folder.with_name("cache"), silent)
    return Artifact.open(made)


def slots_of(artifact: Artifact) -> Slots:
    layout = artifact.manifest.cache
    assert layout is not None
    session = Session(artifact.graph, Provider.CPU, 1)
    return Slots(CachedSession(session, layout, ROWS, CAPACITY), ROWS)


def ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def run(slots: Slots, row: int, prompt: list[int], *cuts: int) -> NDArray[np.float32]:
    """Logits after a prompt that is cut into chunks at `cuts`."""
    slots.clear(row)
    borders = [0, *cuts, len(prompt)]
    for start, stop in itertools.pairwise(borders[:-1]):
        slots.prefill(row, prompt[start:stop], wants_logits=False)
    logits = slots.prefill(row, prompt[borders[-2] :], wants_logits=True)
    assert logits is not None
    return logits.astype(np.float32)


def assert_close(found: NDArray, expected: NDArray, precision: Precision) -> None:
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE[precision]


@pytest.mark.parametrize("fixture", ["tiny_bert", "tiny_llama"])
def test_an_export_has_a_parity_receipt_and_reproduces_its_golden_outputs(
    fixture: str, request: pytest.FixtureRequest, precision: Precision
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    manifest = artifact.manifest
    assert manifest.precision is precision
    assert manifest.parity.smallest_cosine > 0.9
    assert (manifest.parity.top1_agreement is not None) == (fixture == "tiny_llama")
    session = Session(artifact.graph, Provider.CPU, 1)
    # The same program on the same machine.
    assert reproduces_golden(artifact, session, tolerance=1e-5) <= 1e-5


def test_ragged_lengths_do_not_change_an_embedding(
    tiny_bert: Artifact, precision: Precision
) -> None:
    session = Session(tiny_bert.graph, Provider.CPU, 1)
    texts = [ids(length, seed=length) for length in (1, 17, 2, 40, 9)]

    def embed(texts: list[list[int]]) -> NDArray[np.float32]:
        token_types = "token_type_ids" in tiny_bert.manifest.inputs
        return session.run(pack(texts, token_types=token_types), ["sentence_embedding"])[0]

    together = embed(texts)
    for row, text in zip(together, texts, strict=True):
        assert_close(row, embed([text])[0], precision)


def test_decoding_from_the_cache_equals_running_the_whole(
    tiny_llama: Artifact, precision: Precision
) -> None:
    slots, prompt = slots_of(tiny_llama), ids(20)
    run(slots, 0, prompt[:8])
    for count in range(8, 20):
        decoded = slots.decode([0], [prompt[count]], 1)[0]
        assert_close(decoded, run(slots, 1, prompt[: count + 1]), precision)


@pytest.mark.parametrize("cuts", [(1,), (5, 10, 15), (19,)])
def test_prefill_in_chunks_equals_prefill_at_once(
    tiny_llama: Artifact, precision: Precision, cuts: tuple[int, ...]
) -> None:
    slots, prompt = slots_of(tiny_llama), ids(20)
    assert_close(run(slots, 1, prompt, *cuts), run(slots, 0, prompt), precision)


def test_rows_of_different_lengths_decode_together_as_alone(
    tiny_llama: Artifact, precision: Precision
) -> None:
    slots = slots_of(tiny_llama)
    prompts = [ids(length, seed=length) for length in (3, 17, 1, 9)]
    for row, prompt in enumerate(prompts):
        run(slots, row, prompt)
    together = slots.decode(range(4), [7] * 4, 4)
    alone = slots_of(tiny_llama)
    for row, prompt in zip(together, prompts, strict=True):
        run(alone, 0, prompt)
        assert_close(row, alone.decode([0], [7], 1)[0], precision)


def test_a_row_between_that_does_not_decode_is_left_as_it_was(
    tiny_llama: Artifact, precision: Precision
) -> None:
    slots = slots_of(tiny_llama)
    for row in range(3):
        run(slots, row, ids(6 + row, seed=row))
    expected = slots_of(tiny_llama)
    run(expected, 0, ids(7, seed=1))
    slots.decode([0, 2], [5, 5], 3)
    found = slots.decode([0, 1, 2], [6, 6, 6], 3)[1]
    assert_close(found, expected.decode([0], [6], 1)[0], precision)


def test_a_reused_slot_equals_a_fresh_one(tiny_llama: Artifact) -> None:
    slots = slots_of(tiny_llama)
    run(slots, 0, ids(30, seed=3))
    again = run(slots, 0, ids(10, seed=4))
    # What the former tenant left lies beyond the row's length: not a bit of it shows.
    assert np.array_equal(again, run(slots_of(tiny_llama), 0, ids(10, seed=4)))
