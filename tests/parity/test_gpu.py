"""On a GPU, in half precision: what the processor finds in fp32. Skipped without one."""

from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from export.artifact import Artifact, Precision
from export.session import CachedSession, Provider, Session, find_hardware, usable_cores
from loadtests.service_process import serve
from model_core.tokenization import Tokenizer
from service.engines.pooling import pack
from service.engines.slots import Slots
from tests.conftest import exported
from tests.support.texts import passages, prose

HARDWARE = find_hardware()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(HARDWARE.provider is not Provider.CUDA, reason=HARDWARE.reason),
]
ROWS, CAPACITY, CHUNK, STEPS = 8, 1024, 64, 32
TOLERANCE = 1e-2
"""Of fp16, relative to the largest magnitude."""


@pytest.fixture(scope="module")
def minilm(model_cache: Path) -> Artifact:
    return exported("minilm", Precision.FP16, model_cache)


@pytest.fixture(scope="module")
def smollm2(model_cache: Path) -> Artifact:
    return exported("smollm2", Precision.FP16, model_cache)


def slots_of(artifact: Artifact, provider: Provider, block: int | None = None) -> Slots:
    assert artifact.manifest.cache is not None
    session = Session(artifact.graph, provider, usable_cores())
    cached = CachedSession(session, artifact.manifest.cache, ROWS, CAPACITY)
    return Slots(cached, ROWS, block=block)


def off(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest error relative to the largest expected magnitude."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def prefill(slots: Slots, row: int, prompt: Sequence[int]) -> NDArray[np.float32]:
    last = None
    for start in range(0, len(prompt), CHUNK):
        last = slots.prefill(row, prompt[start : start + CHUNK], wants_logits=True)
    assert last is not None
    return last


def test_embeddings_are_those_of_the_processor(minilm: Artifact, minilm_artifact: Artifact) -> None:
    tokenizer = Tokenizer.load(minilm.folder)
    texts = [tokenizer.encode(text)[:256] for text in prose()[:64]]
    feeds = pack(texts, token_types=True)
    (found,) = Session(minilm.graph, Provider.CUDA, 1).run(feeds, ["sentence_embedding"])
    (expected,) = Session(minilm_artifact.graph, Provider.CPU, usable_cores()).run(
        feeds, ["sentence_embedding"]
    )
    assert off(found, expected) < TOLERANCE
    alone = Session(minilm.graph, Provider.CUDA, 1)
    for text, together in zip(texts[:8], found, strict=False):
        (by_itself,) = alone.run(pack([text], token_types=True), ["sentence_embedding"])
        assert off(by_itself[0], together) < TOLERANCE


def test_logits_are_those_of_the_processor_alone_and_in_company(
    smollm2: Artifact, smollm2_fp32_artifact: Artifact
) -> None:
    tokenizer = Tokenizer.load(smollm2.folder)
    prompts = [
        tokenizer.encode(text)[: 40 + 30 * row] for row, text in enumerate(passages()[:ROWS])
    ]
    ours, reference = (
        slots_of(smollm2, Provider.CUDA),
        slots_of(smollm2_fp32_artifact, Provider.CPU),
    )
    for row, prompt in enumerate(prompts):
        assert off(prefill(ours, row, prompt), prefill(reference, row, prompt)) < TOLERANCE
    rows, tokens = range(len(prompts)), [prompt[-1] for prompt in prompts]
    for _ in range(STEPS):
        expected = reference.decode(rows, tokens, ROWS)
        assert off(ours.decode(rows, tokens, ROWS), expected) < TOLERANCE
        tokens = expected.argmax(-1).tolist()
    slots = slots_of(smollm2, Provider.CUDA)
    found = prefill(slots, 0, prompts[0])
    assert off(found, prefill(slots_of(smollm2, Provider.CUDA), 3, prompts[0])) < TOLERANCE


def test_a_prompt_goes_on_from_what_another_row_holds(smollm2: Artifact) -> None:
    slots = slots_of(smollm2, Provider.CUDA, block=CHUNK)
    prompt = Tokenizer.load(smollm2.folder).encode(passages()[0])[: 3 * CHUNK + 5]
    slots.begin([0], prompt)
    expected = prefill(slots, 0, prompt)
    slots.begin([1], prompt)
    there = slots.recall(1, prompt, CAPACITY)
    assert there == 3 * CHUNK
    found = slots.prefill(1, prompt[there:], wants_logits=True)
    assert found is not None
    assert np.array_equal(found, expected)


def test_a_service_says_that_it_runs_there(
    minilm: Artifact, smollm2: Artifact, tmp_path: Path
) -> None:
    models = [str(minilm.folder), str(smollm2.folder)]
    with serve(["--plain", *models], log=tmp_path / "log", start_timeout_s=300) as running:
        described = httpx.get(f"{running.url}/info").raise_for_status().json()["models"]
        assert {model["provider"] for model in described} == {"cuda"}
        body = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 4}
        answer = httpx.post(f"{running.url}/v1/completions", json=body, timeout=60)
        assert "Paris" in answer.raise_for_status().json()["choices"][0]["text"]
