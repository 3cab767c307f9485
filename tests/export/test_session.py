"""The pools of a decoder and of its sources, over graphs of one layer that are written by hand."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.artifact import ENCODER_GRAPH, GRAPH
from export.session import (
    CachedSession,
    Provider,
    Session,
    Sources,
    cpu_quota,
    execution_providers,
    memory_limit,
    missing_libraries,
    usable_cores,
)
from service.engines.slots import Slots
from tests.support.cudart import OnDevice
from tests.support.graphs import CACHE, CROSS, VOCAB, save_decoder, save_encoder

ROWS, CAPACITY, SOURCE_CAPACITY = 5, 16, 100


@pytest.fixture(scope="module", params=[Session, OnDevice], ids=["host", "device"])
def kind(request: pytest.FixtureRequest) -> type[Session]:
    """Where pools are: views of arrays, or memory that is reached by its address alone."""
    return request.param


@pytest.fixture(scope="module")
def encoder(kind: type[Session], tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("encoder")
    return kind(save_encoder(folder / ENCODER_GRAPH), Provider.CPU, 1)


@pytest.fixture(scope="module")
def decoder(kind: type[Session], tmp_path_factory: pytest.TempPathFactory) -> Session:
    return kind(save_decoder(tmp_path_factory.mktemp("decoder") / GRAPH), Provider.CPU, 1)


@pytest.fixture
def sources(encoder: Session) -> Sources:
    return Sources(encoder, CROSS, ROWS, SOURCE_CAPACITY)


@pytest.fixture
def cached(decoder: Session, sources: Sources) -> CachedSession:
    return CachedSession(decoder, CACHE, ROWS, CAPACITY, sources)


@pytest.fixture
def slots(cached: CachedSession, sources: Sources) -> Slots:
    return Slots(cached, ROWS, sources)


def text(length: int) -> list[int]:
    return np.random.default_rng(length).integers(0, VOCAB, length).tolist()


def decode(slots: Slots, rows: Sequence[int], *steps: Sequence[int]) -> NDArray[np.float32]:
    """Logits of the last of `steps`, each a token for every row."""
    found = [slots.decode(rows, step, max(rows) + 1) for step in steps]
    return found[-1]


def alone(slots: Slots, source: list[int], *tokens: int) -> NDArray[np.float32]:
    slots.encode([[0]], [source])
    found = decode(slots, [0], *([token] for token in tokens))[0]
    slots.clear(0)
    return found


def test_each_row_reads_its_own_source_and_tokens(slots: Slots) -> None:
    texts = [text(3), text(11), text(1)]
    expected = [alone(slots, source, 1, 2 + at) for at, source in enumerate(texts)]
    slots.encode([[2], [0], [3]], texts)
    found = decode(slots, [2, 0, 3], [1, 1, 1], [2, 3, 4])
    assert np.array_equal(found, expected)


def test_rows_are_laid_out_for_the_longest_source_and_the_others_keep_their_bits(
    slots: Slots, sources: Sources
) -> None:
    short = text(7)
    expected = [alone(slots, short, *range(1, 1 + count)) for count in (1, 2, 3, 4)]
    widths: list[int] = []

    def step(token: int) -> None:
        found = decode(slots, [1], [token])[0]
        widths.append(sources.width)
        assert np.array_equal(found, expected[token - 1])

    slots.encode([[1]], [short])
    step(1)
    slots.encode([[3]], [text(SOURCE_CAPACITY)])
    step(2)
    slots.clear(3)
    step(3)
    slots.encode([[0]], [text(40)])
    step(4)
    assert widths == [32, 128, 128, 64]


def test_a_source_of_one_token_stays_when_rows_are_laid_out_anew(slots: Slots) -> None:
    expected = alone(slots, text(1), 1)
    slots.encode([[1]], [text(1)])
    slots.encode([[3]], [text(SOURCE_CAPACITY)])
    assert np.array_equal(decode(slots, [1], [1])[0], expected)


def test_a_source_of_several_rows_is_in_each(slots: Slots) -> None:
    expected = [alone(slots, text(9), 1), alone(slots, text(5), 1)]
    slots.encode([[0, 3], [1, 4]], [text(9), text(5)])
    found = decode(slots, [0, 1, 3, 4], [1, 1, 1, 1])
    assert np.array_equal(found, [expected[0], expected[1], expected[0], expected[1]])


def test_rows_that_go_on_from_another_hold_what_it_held(slots: Slots) -> None:
    source = text(9)
    expected = [alone(slots, source, 1, 2, 5, 6), alone(slots, source, 1, 3, 5, 7)]
    slots.encode([[0, 2, 3]], [source])
    decode(slots, [0], [1])
    rows = slots.follow([0], [0, 0], (0, 2, 3))
    decode(slots, rows, [2, 3])
    rows = slots.follow(rows, [1, 0], (0, 2, 3))
    decode(slots, rows, [5, 5])
    rows = slots.follow(rows, [1, 0, 1], (0, 2, 3))
    found = decode(slots, rows, [6, 7, 4])
    assert np.array_equal(found[:2], expected)


def test_idle_rows_between_are_finite_and_leave_no_trace(slots: Slots) -> None:
    slots.encode([[4]], [text(6)])
    assert np.isfinite(slots.decode([0, 4], [1, 1], ROWS)).all()
    slots.clear(0, 4)
    assert np.array_equal(alone(slots, text(2), 3), alone(slots, text(2), 3))


def test_a_source_that_is_not_finite_is_told_and_not_written(
    slots: Slots, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(slots, text(4), 1)
    run = sources.encoder.run

    def spoilt(feeds: dict, outputs: Sequence[str]) -> list[NDArray]:
        found = run(feeds, outputs)
        found[1][0, 0, 2] = np.inf
        return found

    monkeypatch.setattr(sources.encoder, "run", spoilt)
    assert slots.encode([[1], [0]], [text(5), text(4)]) == [False, True]
    assert np.array_equal(decode(slots, [0, 1], [1, 1])[0], expected)
    for pool in sources.pools.values():
        assert all(
            np.isfinite(pool.read(row, slice(0, sources.width))).all() for row in range(ROWS)
        )


def test_wiping_a_row_leaves_nothing_in_it_and_others_alone(
    slots: Slots, cached: CachedSession
) -> None:
    slots.encode([[0, 1]], [text(4)])
    before = decode(slots, [0, 1], [1, 1])
    cached.pools["value_0"].write(0, slice(7, 8), np.full((1, 1, CACHE.head_dim), np.nan))
    slots.wipe(0)
    slots.encode([[0]], [text(4)])
    assert np.array_equal(slots.decode([0], [1], 2), before[:1])
    for row in range(ROWS):
        assert all(np.isfinite(values).all() for values in cached.read(row, slice(0, CAPACITY)))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_limit_of_processor_time_bounds_the_threads(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    write_all(tmp_path, files)
    assert cpu_quota(tmp_path) == cores
    all_cores = usable_cores(tmp_path / "none")
    assert usable_cores(tmp_path) == min(
        all_cores, all_cores if cores is None else math.ceil(cores)
    )


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "4096\n"}, 4096),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "8192\n"}, 8192),
        ({"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None),
        ({}, None),
    ],
)
def test_a_limit_of_memory_is_told(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    write_all(tmp_path, files)
    assert memory_limit(tmp_path) == (limit or memory_limit(tmp_path / "none"))


def write_all(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_what_a_freed_row_began_with_is_taken_again_bit_by_bit(
    kind: type[Session], tmp_path: Path
) -> None:
    session = kind(save_decoder(tmp_path / GRAPH, reads_source=False), Provider.CPU, 1)
    slots = Slots(CachedSession(session, CACHE, ROWS, CAPACITY), ROWS, block=4)
    prompt, other = text(11), text(9)

    def run(row: int, prompt: list[int]) -> tuple[int, list[NDArray[np.float32]]]:
        """How much was there, and the logits after the prompt and after each of two tokens."""
        slots.begin([row], prompt)
        cached = slots.recall(row, prompt, CAPACITY)
        chunks = [prompt[start : start + 4] for start in range(cached, len(prompt), 4)]
        *_, last = [slots.prefill(row, chunk, wants_logits=True) for chunk in chunks]
        assert last is not None
        return cached, [last, *(decode(slots, [row], [token])[0] for token in (3, 5))]

    _, expected = run(0, prompt)
    # By copies from a row that runs, and in place after it was bound without being used.
    for row in (2, 3):
        cached, found = run(row, prompt)
        assert cached == 8
        assert np.array_equal(found, expected)
    slots.clear(0, 2)
    decode(slots, [3], [1], [2])
    slots.clear(3)
    run(0, other)
    slots.begin([4], prompt)
    assert slots.recall(4, prompt, CAPACITY) == 8
    slots.clear(0, 4)
    cached, found = run(0, prompt)
    assert cached == 8
    assert np.array_equal(found, expected)


def test_a_gpu_is_asked_for_first_and_its_memory_bounded() -> None:
    assert execution_providers(Provider.CPU, 2**30) == ["CPUExecutionProvider"]
    (name, options), last = execution_providers(Provider.CUDA, 2**30)
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["gpu_mem_limit"] == str(2**30)
    assert "gpu_mem_limit" not in execution_providers(Provider.CUDA, None)[0][1]


def test_libraries_that_the_linker_has_not_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.session.CUDA_LIBRARIES", ("libc.so.6", "libnot-there.so.1"))
    assert missing_libraries() == ["libnot-there.so.1"]
