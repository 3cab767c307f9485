"""Readers against the libraries that wrote the files, and against damage."""

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import save_file

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.readers import GgufReader, SafetensorsReader, open_tensors
from model_core.checkpoints.sources import locate

# What the library can write too, so that values can be compared with those that went in. The
# bound is the largest error of values in [-1, 1]: half a step of a block's scale, roughly.
WRITABLE = (
    (GGMLQuantizationType.F32, 0.0),
    (GGMLQuantizationType.F16, 2**-11),
    (GGMLQuantizationType.BF16, 2**-8),
    (GGMLQuantizationType.Q8_0, 1 / 127),
    (GGMLQuantizationType.Q5_0, 1 / 15),
    (GGMLQuantizationType.Q5_1, 1 / 15),
    (GGMLQuantizationType.Q4_0, 1 / 7),
    (GGMLQuantizationType.Q4_1, 1 / 7),
)
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def write_gguf(path: Path, tensors: Mapping[str, tuple[np.ndarray, GGMLQuantizationType]]) -> Path:
    """A GGUF file with metadata of every kind and `tensors`, quantised as they say."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("test.count", 7)
    writer.add_float32("test.share", 0.5)
    writer.add_bool("test.flag", True)
    writer.add_string("general.license", "apache-2.0")
    writer.add_array("test.words", ["a", "é", "日本"])
    writer.add_array("test.numbers", [1, -2, 3])
    for name, (values, kind) in tensors.items():
        stored = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def some_values(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)


class TestGguf:
    @pytest.mark.parametrize(("kind", "bound"), WRITABLE)
    def test_values_come_back_within_the_types_precision(
        self, tmp_path: Path, kind: GGMLQuantizationType, bound: float
    ) -> None:
        values = some_values(6, 64)
        reader = GgufReader(write_gguf(tmp_path / "a.gguf", {"w": (values, kind)}))
        assert reader.names() == ["w"]
        assert reader.shape("w") == (6, 64)
        read = reader.read("w")
        assert read.dtype == torch.float32
        assert read.shape == (6, 64)
        torch.testing.assert_close(read, torch.from_numpy(values), atol=bound, rtol=0)

    @pytest.mark.parametrize("name", K_QUANTS)
    def test_k_quants_equal_the_librarys(self, tmp_path: Path, name: str) -> None:
        kind = GGMLQuantizationType[name]
        block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
        # Small bytes, so that the half-precision scales among them are finite.
        stored = np.random.default_rng(7).integers(0, 60, (3, 2 * block_bytes), dtype=np.uint8)
        writer = gguf.GGUFWriter(tmp_path / "k.gguf", "llama")
        writer.add_tensor("w", stored, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        reader = GgufReader(tmp_path / "k.gguf")
        assert reader.shape("w") == (3, 512)
        expected = gguf.quants.dequantize(stored, kind)
        assert torch.equal(reader.read("w"), torch.from_numpy(expected))

    def test_metadata_has_every_kind_of_value(self, tmp_path: Path) -> None:
        metadata = read_gguf_metadata(write_gguf(tmp_path / "a.gguf", {}))
        assert metadata["test.count"] == 7
        assert metadata["test.share"] == 0.5
        assert metadata["test.flag"] is True
        assert metadata["test.words"] == ["a", "é", "日本"]
        assert metadata["test.numbers"] == [1, -2, 3]

    def test_the_head_equals_what_the_library_reads(self, smollm2_gguf: Path) -> None:
        library = gguf.GGUFReader(smollm2_gguf)
        own = {
            name: field.contents()
            for name, field in library.fields.items()
            if not name.startswith("GGUF.")
        }
        reader = GgufReader(smollm2_gguf)
        assert dict(reader.metadata) == own
        assert reader.names() == [tensor.name for tensor in library.tensors]
        for tensor in library.tensors[:12]:
            assert reader.shape(tensor.name) == tuple(reversed(tensor.shape.tolist()))
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert torch.equal(reader.read(tensor.name), torch.from_numpy(expected.copy()))

    def test_a_tensor_that_was_read_can_be_changed(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "a.gguf", {"w": (some_values(2, 4), WRITABLE[0][0])})
        before = path.read_bytes()
        GgufReader(path).read("w").zero_()
        assert path.read_bytes() == before

    def test_a_truncated_file_names_the_tensor_that_is_cut(self, tmp_path: Path) -> None:
        kind = GGMLQuantizationType.F32
        tensors = {"first": (some_values(8, 8), kind), "second": (some_values(8, 8), kind)}
        path = write_gguf(tmp_path / "a.gguf", tensors)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=r"a\.gguf is truncated: tensor 'second'"):
            GgufReader(path)

    def test_a_file_cut_anywhere_in_its_head_is_refused(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "a.gguf", {"w": (some_values(1, 32), WRITABLE[0][0])})
        whole = path.read_bytes()
        for length in range(len(whole) - 128):
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=r"a\.gguf"):
                GgufReader(path)

    @pytest.mark.parametrize(
        ("position", "value", "complaint"),
        [
            (0, b"GGML", "not a GGUF file: it begins with b'GGML'"),
            (4, b"\x01\0\0\0", "GGUF version 1"),
            (4, b"\0\0\0\x03", "accepted: 2 and 3, little-endian"),
            (16, b"\xff" * 8, "truncated or corrupt: metadata key"),
            (24, b"\xff" * 8, "truncated or corrupt: metadata key 1 of 7 needs"),
            (32, b"\xff", "metadata key 1 of 7 is not UTF-8"),
        ],
    )
    def test_a_damaged_head_is_refused(
        self, tmp_path: Path, position: int, value: bytes, complaint: str
    ) -> None:
        path = write_gguf(tmp_path / "a.gguf", {})
        data = bytearray(path.read_bytes())
        data[position : position + len(value)] = value
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=complaint):
            GgufReader(path)

    def test_an_unsupported_type_is_named_with_its_tensor(self, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "i.gguf", "llama")
        writer.add_tensor("counts", np.zeros((2, 2), dtype=np.int32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(CheckpointError, match="'counts' has the unsupported type I32"):
            GgufReader(tmp_path / "i.gguf")

    def test_one_part_of_several_is_refused(self, tmp_path: Path) -> None:
        writer = gguf.GGUFWriter(tmp_path / "p.gguf", "llama")
        writer.add_uint16("split.count", 3)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(CheckpointError, match="one of 3 parts"):
            GgufReader(tmp_path / "p.gguf")

    def test_an_empty_or_absent_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty.gguf").touch()
        for name in ("empty.gguf", "absent.gguf"):
            with pytest.raises(CheckpointError, match=name):
                GgufReader(tmp_path / name)

    def test_an_unknown_name_is_refused(self, tmp_path: Path) -> None:
        reader = GgufReader(write_gguf(tmp_path / "a.gguf", {}))
        with pytest.raises(CheckpointError, match="no tensor 'w'"):
            reader.read("w")


class TestSafetensors:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
    def test_tensors_keep_their_type_and_values(self, tmp_path: Path, dtype: torch.dtype) -> None:
        tensor = torch.arange(6).reshape(2, 3).to(dtype)
        save_file({"w": tensor}, tmp_path / "model.safetensors")
        reader = SafetensorsReader({"model.safetensors": tmp_path / "model.safetensors"})
        assert reader.names() == ["w"]
        assert reader.shape("w") == (2, 3)
        assert torch.equal(reader.read("w"), tensor)

    def test_shards_read_as_one_checkpoint(self, tmp_path: Path) -> None:
        files = write_shards(tmp_path, {"a": "one", "b": "two"})
        reader = SafetensorsReader(files)
        assert reader.names() == ["a", "b"]
        assert torch.equal(reader.read("b"), torch.ones(2))

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        files = write_shards(tmp_path, {"a": "one", "b": "two"})
        del files["two.safetensors"]
        with pytest.raises(CheckpointError, match=r"two\.safetensors is missing"):
            SafetensorsReader(files)

    def test_a_tensor_that_its_shard_lacks_is_named(self, tmp_path: Path) -> None:
        files = write_shards(tmp_path, {"a": "one", "b": "two"})
        save_file({"c": torch.ones(1)}, files["two.safetensors"])
        with pytest.raises(CheckpointError, match=r"two\.safetensors lacks b"):
            SafetensorsReader(files)

    @pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": {}}'])
    def test_a_damaged_index_is_refused(self, tmp_path: Path, index: str) -> None:
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(index)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            SafetensorsReader({path.name: path})

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        save_file({"w": torch.ones(100)}, path)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole"):
            SafetensorsReader({path.name: path})

    def test_an_unknown_name_is_refused(self, tmp_path: Path) -> None:
        save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
        reader = SafetensorsReader({"model.safetensors": tmp_path / "model.safetensors"})
        with pytest.raises(CheckpointError, match="no tensor 'v'"):
            reader.shape("v")

    def test_one_file_by_another_name_will_do_and_two_will_not(self, tmp_path: Path) -> None:
        files = write_shards(tmp_path, {"a": "one", "b": "two"})
        del files["model.safetensors.index.json"]
        with pytest.raises(CheckpointError, match=r"found one\.safetensors, two\.safetensors"):
            SafetensorsReader(files)
        del files["two.safetensors"]
        assert SafetensorsReader(files).names() == ["a"]


def write_shards(folder: Path, where: Mapping[str, str]) -> dict[str, Path]:
    index = folder / "model.safetensors.index.json"
    weight_map = {name: f"{shard}.safetensors" for name, shard in where.items()}
    index.write_text(json.dumps({"weight_map": weight_map}))
    files = {index.name: index}
    for name, shard in weight_map.items():
        save_file({name: torch.ones(2)}, folder / shard)
        files[shard] = folder / shard
    return files


def test_the_reader_follows_what_was_located(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", {})
    assert isinstance(open_tensors(locate(str(path), cache=tmp_path)), GgufReader)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    assert isinstance(open_tensors(locate(str(folder), cache=tmp_path)), SafetensorsReader)
