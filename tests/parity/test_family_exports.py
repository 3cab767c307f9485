"""The family tree through to ONNX: what `anatomy export FOLDER` makes of a checkpoint of each.

One case of every family, and those that take another way through the operators.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.artifact import Artifact, Kind
from model_core.checkpoints.load import Loaded
from tests.support.families import CASES, Case
from tests.support.families.exported import Exports, Rows, main_head, torch_logits

TOLERANCE = 1e-4  # float32 in another order, through other kernels, relative to the output's scale


def chosen() -> list[Case]:
    """The first case of each family, and those that are marked."""
    seen: set[str] = set()
    cases: list[Case] = []
    for case in CASES:
        if case.family not in seen or case.exported:
            cases.append(case)
        seen.add(case.family)
    return cases


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, family_exports: Exports) -> tuple[Artifact, Loaded]:
    return family_exports.of(request.param)


every_family = pytest.mark.parametrize("exported", chosen(), ids=str, indirect=True)
every_writer = pytest.mark.parametrize(
    "exported", [case for case in chosen() if main_head(case)], ids=str, indirect=True
)


def error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@every_family
def test_the_graphs_agree_with_pytorch(exported: tuple[Artifact, Loaded]) -> None:
    """Encoders with texts of several lengths in one ragged batch."""
    assert exported[0].manifest.parity.largest_error <= TOLERANCE


@every_writer
def test_cached_equals_uncached_in_chunks_steps_and_ragged_rows(
    exported: tuple[Artifact, Loaded],
) -> None:
    artifact, ours = exported
    rows = Rows(artifact)
    sources = None
    if artifact.manifest.kind is Kind.ENCODER_DECODER:
        sources = [[5, 9, 33, 21], [40], [8, 7, 6, 50, 51, 52, 53, 54, 55, 56, 3]]
        for row, source in enumerate(sources):
            rows.read(row, source)
    texts = [[4, 8, 15, 16, 23, 42, 11, 12, 13], [33], [7, 7, 30, 31]]
    whole = [rows.prefill(row, text) for row, text in enumerate(texts)]
    for row, text in enumerate(texts):
        expected = torch_logits(ours, text, sources[row] if sources else None)
        assert error(whole[row], expected) <= TOLERANCE

    rows.lengths[0] = 0
    chunks = [rows.prefill(0, texts[0][:2]), rows.prefill(0, texts[0][2:7])]
    chunks.append(rows.prefill(0, texts[0][7:]))
    assert error(np.concatenate(chunks), whole[0]) <= TOLERANCE

    steps = [[20, 44, 9], [21, 5, 58], [59, 3, 10]]
    for number, step in enumerate(steps):
        found = rows.decode(step)
        for row, text in enumerate(texts):
            longer = [*text, *(tokens[row] for tokens in steps[: number + 1])]
            expected = torch_logits(ours, longer, sources[row] if sources else None)
            assert error(found[row], expected[-1]) <= TOLERANCE


@every_writer
def test_a_step_alone_is_bit_for_bit_one_among_others(exported: tuple[Artifact, Loaded]) -> None:
    artifact, _ = exported
    found: list[NDArray[np.float32]] = []
    for others in (0, 2):
        rows = Rows(artifact)
        for row in range(others + 1):
            if artifact.manifest.kind is Kind.ENCODER_DECODER:
                rows.read(row, [5, 9, 33] if row == 0 else [8, 7] * (row + 3))
            rows.prefill(row, [4, 8, 15] if row == 0 else [3, 9] * row)
        found.append(rows.decode([20] + [40] * others)[0])
    assert np.array_equal(found[0], found[1])
