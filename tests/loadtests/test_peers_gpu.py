"""The comparison on a GPU, done to tiny shapes on the processor: both sides do the same work."""

from pathlib import Path

import pytest

from export.artifact import Artifact
from loadtests.peers.comparison import Comparison
from loadtests.peers.goals import GOALS
from loadtests.peers.gpu.device import PROCESSOR
from loadtests.peers.gpu.jobs import gpu
from loadtests.peers.gpu.models import FULL, SMALL
from loadtests.peers.stage import Run


@pytest.fixture(scope="module")
def found(minilm_artifact: Artifact, model_cache: Path) -> dict[str, Comparison]:
    said: list[str] = []
    run = Run(model_cache, 1, (), (), said.append)
    comparisons = {one.name: one for one in gpu(run, PROCESSOR, SMALL)}
    # Steps of shapes so small may take no longer than what is taken off; on a GPU they do.
    failed = [line for line in said if "failed" in line and "too few to be measured" not in line]
    assert not failed
    return comparisons


def test_every_goal_on_a_gpu_has_its_comparison(found: dict[str, Comparison]) -> None:
    full = {
        *(f"gpu-encoder-{length}" for length in (*FULL.lengths, "mixed")),
        *(f"gpu-decoder-{rows}x{FULL.context}" for rows in FULL.rows),
        f"gpu-decoder-prefill-{FULL.prompt}",
        "gpu-http-minilm",
    }
    assert {goal.comparison for goal in GOALS if goal.comparison.startswith("gpu-")} == full
    assert len(found) == len(SMALL.lengths) + 1 + len(SMALL.rows) + 1 + 1


def test_both_sides_do_the_same_work(found: dict[str, Comparison]) -> None:
    for name, one in found.items():
        rows = {row.name: row for row in one.rows}
        assert all(row.median(one.unit) > 0 for row in rows.values()), name
        if "encoder" in name:
            assert rows["ours"].agreement == pytest.approx(1, abs=1e-4)
        if "decoder" in name and "prefill" not in name:
            assert rows["ours"].agreement == 1.0


def test_the_ceilings_are_those_of_the_same_run(found: dict[str, Comparison]) -> None:
    for one in found.values():
        assert one.limits is not None
        assert one.limits.giga_bytes > 0
        assert {product.precision for product in one.limits.products} == {"fp32", "bf16", "fp16"}
        if one.job != "gpu-http":
            assert all(row.limit for row in one.rows), one.name
