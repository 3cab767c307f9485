"""Checks of the machine: each finds what is wrong, and says what to do."""

import os
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from export.artifact import Artifact
from export.session import Hardware, Provider
from service import doctor
from service.api.keys import digest_of, new_key
from service.cli import main
from service.doctor import Finding, Level, examine, listening
from service.settings import ServiceSettings

CPU = Hardware(Provider.CPU, "a test")


def finding(findings: list[Finding], what: str) -> Finding:
    (found,) = [finding for finding in findings if finding.what == what]
    return found


def test_everything_is_looked_at_and_what_is_wrong_has_advice(tmp_path: Path) -> None:
    findings = examine(ServiceSettings(cache_folder=tmp_path), CPU)
    looked_at = {finding.what.split()[0].rstrip(",") for finding in findings}
    assert looked_at >= {
        "device", "threads", "memory", "artifact", "disk", "open", "clock", "keys", "port", "user",
    }  # fmt: skip
    assert [
        finding for finding in findings if finding.level is not Level.FINE and not finding.advice
    ] == []


def test_a_model_that_is_not_exported_is_a_warning(tmp_path: Path) -> None:
    findings = examine(ServiceSettings(cache_folder=tmp_path, models=("minilm",)), CPU)
    assert finding(findings, "artifact of minilm").level is Level.WARNING


def test_a_model_that_nothing_here_can_export_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has no torch: a model that isn't in it never gets there by itself."""
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    findings = examine(ServiceSettings(cache_folder=tmp_path, models=("minilm",)), CPU)
    found = finding(findings, "artifact of minilm")
    assert found.level is Level.ERROR
    assert "no torch" in found.found


@pytest.mark.parametrize("missing", [[], ["libcublas.so.13", "libcudnn.so.9"]])
def test_libraries_that_a_gpu_needs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    monkeypatch.setattr(doctor, "missing_libraries", lambda: missing)
    gpu = Hardware(Provider.CUDA, "a test")
    found = finding(examine(ServiceSettings(cache_folder=tmp_path), gpu), "device")
    assert (found.level is Level.ERROR) == bool(missing)
    assert all(name in found.found for name in missing)
    assert ("transformer-anatomy[cuda]" in found.advice) == bool(missing)


def test_a_damaged_artifact_is_an_error_and_so_is_one_that_everybody_may_write(
    minilm_artifact: Artifact, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in minilm_artifact.folder.iterdir():
        os.link(path, copy / path.name)
    settings = ServiceSettings(models=(str(copy),))
    what = f"artifact of {copy}"
    assert finding(examine(settings, CPU), what).level is Level.FINE
    copy.chmod(0o777)
    found = finding(examine(settings, CPU), what)
    assert found.level is Level.ERROR
    assert "everybody may write copy" in found.found
    copy.chmod(0o755)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").write_text("{}")
    found = finding(examine(settings, CPU), what)
    assert found.level is Level.ERROR
    assert "tokenizer.json" in found.found


def test_a_service_that_is_open_to_the_network_wants_keys(tmp_path: Path) -> None:
    open_to_all = ServiceSettings(host="0.0.0.0", cache_folder=tmp_path)
    assert finding(examine(open_to_all, CPU), "keys").level is Level.ERROR
    keys = tmp_path / "keys.txt"
    keys.write_text(f"alice {digest_of(new_key())}\n")
    closed = ServiceSettings(host="0.0.0.0", cache_folder=tmp_path, api_keys_file=keys)
    assert finding(examine(closed, CPU), "keys").level is Level.FINE
    keys.write_text("alice\n")
    assert finding(examine(closed, CPU), "keys").level is Level.ERROR


def test_more_threads_than_cores_are_a_warning(tmp_path: Path) -> None:
    settings = ServiceSettings(threads=1024, cache_folder=tmp_path)
    found = finding(examine(settings, CPU), "threads")
    assert found.level is Level.WARNING
    assert "ANATOMY_THREADS" in found.advice


def test_a_taken_port_is_found(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        settings = ServiceSettings(port=number, cache_folder=tmp_path)
        assert finding(examine(settings, CPU), "port").level is Level.WARNING
        assert (number, ip_address("127.0.0.1")) in listening()


def test_addresses_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1F40 00000000:0000 0A\n"
        "   1: 00000000:2382 00000000:0000 0A\n"
        "   2: 0100007F:0016 0100007F:9999 01\n"
    )
    longer = tmp_path / "tcp6"
    longer.write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 00000000000000000000000001000000:18EB 00000000000000000000000000000000:0000 0A\n"
    )
    assert listening((table, longer, tmp_path / "none")) == {
        (8000, ip_address("127.0.0.1")), (9090, ip_address("0.0.0.0")), (6379, ip_address("::1")),
    }  # fmt: skip


def test_rays_ports_that_are_open_to_the_network_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {
        (6379, ip_address("0.0.0.0")), (8265, ip_address("127.0.0.1")), (22, ip_address("::")),
    }  # fmt: skip
    monkeypatch.setattr(doctor, "listening", lambda: found)
    findings = examine(ServiceSettings(cache_folder=tmp_path), CPU)
    ports = [finding.what for finding in findings if finding.what.startswith("port ")]
    assert ports == ["port 6379"]


def test_memory_that_caches_would_outgrow_is_a_warning(
    smollm2_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServiceSettings(models=(str(smollm2_artifact.folder),), slots=32)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 2 * 1024**3)
    assert finding(examine(settings, CPU), "memory").level is Level.WARNING
    few = settings.model_copy(update={"slots": 2})
    assert finding(examine(few, CPU), "memory").level is Level.FINE


def test_the_command_ends_with_1_when_something_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANATOMY_CACHE_FOLDER", str(tmp_path))
    monkeypatch.setenv("ANATOMY_HOST", "0.0.0.0")
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    assert "whoever reaches it may ask" in capfd.readouterr().out
