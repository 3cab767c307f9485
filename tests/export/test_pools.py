"""Pools of rows: the same to whoever uses them, in the process's memory or in a GPU's."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from export.pools import Cuda, CudaPool, HostPool, Pool, PoolError, Shape
from tests.support.cudart import Cudart

SHAPE: Shape = (3, 2, 8, 4)


@pytest.fixture(params=["float32", "float16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["host", "device"])
def pool(request: pytest.FixtureRequest, dtype: str) -> Pool:
    if request.param == "host":
        return HostPool.reserve(SHAPE, dtype)
    return CudaPool.reserve(Cuda(Cudart()), SHAPE, dtype)


def filled(pool: Pool) -> np.ndarray:
    """Give every row other values, and return them all [R, G, C, D]."""
    rows, heads, places, width = pool.shape
    shape = (rows, heads, places, width)
    values = np.arange(np.prod(shape)).reshape(shape).astype(pool.dtype)
    for row in range(rows):
        pool.write(row, slice(0, places), values[row])
    return values


def whole(pool: Pool) -> np.ndarray:
    rows, _, places, _ = pool.shape
    return np.stack([pool.read(row, slice(0, places)) for row in range(rows)])


def test_a_pool_begins_with_zeros_of_its_type(pool: Pool, dtype: str) -> None:
    assert whole(pool).dtype == pool.dtype == dtype
    assert not whole(pool).any()


def test_what_is_written_is_read_and_nothing_else_changes(pool: Pool) -> None:
    expected = filled(pool)
    values = -np.ones((2, 3, 4), pool.dtype)
    pool.write(1, slice(2, 5), values)
    expected[1, :, 2:5] = values
    assert np.array_equal(whole(pool), expected)
    assert np.array_equal(pool.read(1, slice(4, 7)), expected[1, :, 4:7])
    assert pool.read(1, slice(3, 3)).shape == (2, 0, 4)


def test_some_places_of_a_row_are_copied_to_another(pool: Pool) -> None:
    expected = filled(pool)
    pool.copy(2, 0, slice(3, 8))
    pool.copy(1, 0, slice(1, 1))
    pool.copy(1, 0, slice(1, 0))
    pool.copy(1, 1, slice(0, 8))
    expected[0, :, 3:] = expected[2, :, 3:]
    assert np.array_equal(whole(pool), expected)


def test_a_row_is_wiped_and_others_stay(pool: Pool) -> None:
    expected = filled(pool)
    pool.wipe(1)
    expected[1] = 0
    assert np.array_equal(whole(pool), expected)


def test_the_same_memory_is_laid_out_for_fewer_places(pool: Pool) -> None:
    expected = filled(pool)
    narrow = pool.laid_out(4)
    assert narrow.shape == (3, 2, 4, 4)
    assert narrow.address(0) == pool.address(0)
    assert np.array_equal(whole(narrow).ravel(), expected.ravel()[: 3 * 2 * 4 * 4])
    assert np.array_equal(whole(narrow.laid_out(8)), expected)


def test_rows_follow_each_other(pool: Pool) -> None:
    size = 2 * 8 * 4 * pool.dtype.itemsize
    assert [pool.address(row) - pool.address(0) for row in range(3)] == [0, size, 2 * size]


def test_a_device_without_room_says_how_much_it_has() -> None:
    device = Cudart(size=1000)
    with pytest.raises(
        PoolError, match=r"has no 1,536 bytes .* \(1,000 of 1,000 are free\); fewer"
    ):
        CudaPool.reserve(Cuda(device), (3, 2, 8, 16), "float16")
    assert not device.blocks


def test_memory_of_a_device_goes_back_with_its_last_pool() -> None:
    device = Cudart()
    pool = CudaPool.reserve(Cuda(device), SHAPE, "float32")
    narrow = pool.laid_out(2)
    del pool
    assert len(device.blocks) == 1
    del narrow
    assert not device.blocks


def test_what_cuda_refuses_is_an_error_with_its_reason() -> None:
    device = Cudart()
    pool = CudaPool.reserve(Cuda(device), SHAPE, "float32")
    with pytest.raises(PoolError, match=r"cudaMemcpy2D: error number 21 \(CUDA error 21\)"):
        pool.read(3, slice(0, 8))  # behind the last row


def test_a_pool_takes_memory_by_what_is_written_to_it() -> None:
    def resident() -> int:
        fields = Path("/proc/self/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * mmap.PAGESIZE

    pool = HostPool.reserve((8, 4, 2048, 64), "float32")
    before = resident()
    pool.array[:, :, 0] = 1  # a token in each row and head
    assert resident() - before < 32 * 4 * mmap.PAGESIZE + 2**20
    assert pool.array.sum() == 8 * 4 * 64
