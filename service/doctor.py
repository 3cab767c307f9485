"""What is wrong with this machine or deployment, and what to do about it.

Each check looks at one thing and says what it found. A check never changes anything, and one that
can't look says so instead of passing.
"""

import ctypes
import os
import resource
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from export.artifact import Artifact, ArtifactError
from export.session import (
    Hardware,
    Provider,
    cpu_quota,
    memory_limit,
    missing_libraries,
    usable_cores,
)
from service.api.keys import ApiKeys, KeyFileError
from service.exporting import artifact_at_hand
from service.settings import ServiceSettings

GIB = 1024**3
OPEN_FILES = 4096
"""Connections that a service should bear: each takes a file descriptor."""
FREE_DISK = 2 * GIB
"""For an export beside what is there, and for Ray's logs."""
FREE_SHARED_MEMORY = 128 * 1024**2
"""What the manifests give Ray's object store, through which no request passes."""

RAYS_PORTS = {
    6379: "Ray's control plane", 8265: "Ray's dashboard, which takes jobs", 10001: "Ray's client",
    52365: "Ray's agent", 8404: "HAProxy's statistics", 9101: "HAProxy's metrics",
}  # fmt: skip
"""Ports that must not be open to whoever is there: the first four run code."""


class Level(StrEnum):
    """How bad it is. Only `ERROR` makes the command fail."""

    FINE = "fine"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do where that isn't fine."""

    level: Level
    what: str
    found: str
    advice: str = ""


Check = Callable[[ServiceSettings, Hardware], Iterator[Finding]]


def examine(settings: ServiceSettings, hardware: Hardware) -> list[Finding]:
    """What all checks find, in their order."""
    return [finding for check in CHECKS for finding in check(settings, hardware)]


def device(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether models run where they could."""
    del settings
    found = f"{hardware.provider}: {hardware.reason}"
    has_device = Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists()
    if hardware.provider is Provider.CPU and has_device:
        yield Finding(
            Level.ERROR,
            "device",
            found,
            "there is a GPU, but its driver can't be used from here: is the container started "
            "with the NVIDIA runtime, and does it ask for nvidia.com/gpu?",
        )
        return
    if hardware.provider is Provider.CUDA:
        missing = missing_libraries()
        if missing:
            yield Finding(
                Level.ERROR,
                "device",
                f"{found}; not found: {', '.join(missing)}",
                "pip install 'transformer-anatomy[cuda]' brings CUDA's libraries along",
            )
            return
    yield Finding(Level.FINE, "device", found)


def threads(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether sessions take more threads than there are cores for them."""
    del hardware
    cores, quota = usable_cores(), cpu_quota()
    wanted = settings.threads or cores
    limit = "" if quota is None else f", limited to {quota:g} by the control group"
    found = f"{wanted} a model, on {cores} cores{limit}"
    if wanted > cores:
        yield Finding(
            Level.WARNING,
            "threads",
            found,
            "threads beyond the cores wait for each other in the middle of a product: set "
            f"ANATOMY_THREADS to {cores} or less, or leave it out",
        )
    else:
        yield Finding(Level.FINE, "threads", found)


def artifacts(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether what is served is there, whole, and can't be changed by others."""
    for model in settings.models:
        folder = artifact_at_hand(model, settings, hardware)
        what = f"artifact of {model}"
        if folder is None and find_spec("torch") is None:
            yield Finding(
                Level.ERROR,
                what,
                "not exported, and there is no torch here that could",
                f"anatomy export {model} where torch is, and bring the artifact here: into the "
                "image, or in a volume",
            )
            continue
        if folder is None:
            yield Finding(
                Level.WARNING,
                what,
                "not exported yet",
                f"the first start exports it, which takes torch and minutes: anatomy export {model}"
                " does it before",
            )
            continue
        try:
            Artifact.open(folder)
        except ArtifactError as error:
            yield Finding(
                Level.ERROR, what, str(error), f"remove {folder} and export the model again"
            )
            continue
        writable = [path.name for path in (folder, *folder.iterdir()) if others_write(path)]
        if writable:
            yield Finding(
                Level.ERROR,
                what,
                f"everybody may write {', '.join(sorted(writable))} in {folder}",
                f"chmod -R o-w {folder}",
            )
        else:
            yield Finding(Level.FINE, what, f"{folder}, every digest as written")


def others_write(path: Path) -> bool:
    """Whether somebody who is neither owner nor of the group may write."""
    return bool(path.stat().st_mode & stat.S_IWOTH)


def memory(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether weights and caches fit when every slot has been used to its end."""
    weights = caches = 0
    for model in settings.models:
        folder = artifact_at_hand(model, settings, hardware)
        if folder is None:
            continue
        weights += sum(path.stat().st_size for path in folder.iterdir())
        with suppress(ArtifactError):  # told by another check
            manifest = Artifact.open(folder).manifest
            if manifest.cache is not None:
                context = min(settings.max_context, manifest.max_tokens)
                caches += manifest.cache.bytes_per_token * context * settings.slots
    needed, there = weights + caches, memory_limit()
    found = (
        f"weights {weights / GIB:.1f} GiB, caches at most {caches / GIB:.1f} GiB, "
        f"of {there / GIB:.1f} GiB"
    )
    if needed > 0.8 * there:
        yield Finding(
            Level.WARNING,
            "memory",
            found,
            "once every slot was used to its end the process may be killed: lower ANATOMY_SLOTS "
            "or ANATOMY_MAX_CONTEXT, or give it more",
        )
    else:
        yield Finding(Level.FINE, "memory", found)


def disk(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether there is room for artifacts, logs and Ray's shared memory."""
    del hardware
    temporary = Path(tempfile.gettempdir())
    places = {"cache folder": settings.cache_folder, str(temporary): temporary}
    for what, path in places.items():
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        level = Level.WARNING if free < FREE_DISK else Level.FINE
        advice = "an export, or Ray's logs, may find it full" if free < FREE_DISK else ""
        yield Finding(level, f"disk, {what}", f"{free / GIB:.1f} GiB free in {there}", advice)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, never written to
    if shared.exists():
        free = shutil.disk_usage(shared).free
        enough = free >= FREE_SHARED_MEMORY
        yield Finding(
            Level.FINE if enough else Level.WARNING,
            "shared memory",
            f"{free / 1024**2:.0f} MiB free in {shared}",
            "" if enough else "Ray won't start its object store: mount a memory volume there",
        )


def open_files(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether the process may hold as many connections as will come."""
    del settings, hardware
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= OPEN_FILES or soft == resource.RLIM_INFINITY
    yield Finding(
        Level.FINE if enough else Level.WARNING,
        "open files",
        f"at most {soft} ({hard} at the most)",
        "" if enough else f"each connection takes one: ulimit -n {OPEN_FILES}",
    )


def clock(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether the kernel's clock is kept right: certificates and traces go by it."""
    del settings, hardware
    state = ctypes.CDLL(None, use_errno=True).ntp_gettime(ctypes.create_string_buffer(256))
    if state < 0:
        yield Finding(Level.WARNING, "clock", "the kernel doesn't tell its state")
    elif state == 5:  # TIME_ERROR (ntp_gettime(3))
        yield Finding(
            Level.WARNING,
            "clock",
            "not synchronised",
            "run an NTP client on the host; the service itself measures with a clock that never "
            "jumps",
        )
    else:
        yield Finding(Level.FINE, "clock", "synchronised")


def access(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether whoever reaches the service may ask it, and what else is open."""
    del hardware
    open_to_all = not is_loopback(settings.host)
    if settings.api_keys_file is not None:
        try:
            ApiKeys.read(settings.api_keys_file)
        except KeyFileError as error:
            yield Finding(Level.ERROR, "keys", str(error), "anatomy key NAME writes a line of it")
        else:
            yield Finding(Level.FINE, "keys", f"{settings.api_keys_file} is used")
    elif open_to_all:
        yield Finding(
            Level.ERROR,
            "keys",
            f"listens on {settings.host}, and whoever reaches it may ask",
            "anatomy key NAME >> keys.txt, and ANATOMY_API_KEYS_FILE=keys.txt",
        )
    else:
        yield Finding(Level.FINE, "keys", f"none, and only this machine reaches {settings.host}")
    for port, address in sorted(listening()):
        if port in RAYS_PORTS and not address.is_loopback:
            yield Finding(
                Level.ERROR,
                f"port {port}",
                f"{RAYS_PORTS[port]} listens on {address}",
                "close it with a firewall or a NetworkPolicy, or start Ray on loopback",
            )


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(
    tables: Sequence[Path] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6")),
) -> set[tuple[int, IPv4Address | IPv6Address]]:
    """Ports that something listens on, and where (`proc_pid_net(5)`: words in the host's order)."""
    found: set[tuple[int, IPv4Address | IPv6Address]] = set()
    for table in tables:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A":  # TCP_LISTEN
                continue
            address, _, port = fields[1].partition(":")
            words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
            found.add((int(port, 16), ip_address(b"".join(words))))
    return found


def port(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether the service can listen where it would."""
    del hardware
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where = f"{settings.host}:{settings.port}"
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            yield Finding(
                Level.WARNING,
                "port",
                f"can't listen on {where} ({error.strerror})",
                "a service of this one's kind runs there already, or name another with --port",
            )
        else:
            yield Finding(Level.FINE, "port", f"{where} is free")


def user(settings: ServiceSettings, hardware: Hardware) -> Iterator[Finding]:
    """Whether the process has more rights than it needs."""
    del settings, hardware
    is_root = os.geteuid() == 0
    yield Finding(
        Level.WARNING if is_root else Level.FINE,
        "user",
        "root" if is_root else f"user {os.geteuid()}",
        "the image runs as user 10001; root isn't needed" if is_root else "",
    )


CHECKS: tuple[Check, ...] = (
    device, threads, memory, artifacts, disk, open_files, clock, access, port, user,
)  # fmt: skip
