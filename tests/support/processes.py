"""Processes of this machine, as `/proc` tells of them (Linux)."""

from pathlib import Path


def parents() -> dict[int, int]:
    """The parent of every living process."""
    found: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            found[int(status.parent.name)] = int(fields[1])
    return found


def descendants(process_id: int, named: str = "") -> set[int]:
    """Living processes that `process_id` started, or theirs did, with `named` in their command."""
    family, found = parents(), {process_id}
    while more := {child for child, parent in family.items() if parent in found} - found:
        found |= more
    return {one for one in found - {process_id} if named in command_of(one)}


def command_of(process_id: int) -> str:
    """Its command line; empty for one that has ended."""
    try:
        return (Path("/proc") / str(process_id) / "cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
