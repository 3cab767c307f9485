"""Writes the section "Seen by a run" of `docs/faults.md` from the figures that runs have left:

.venv/bin/python -m tests.faults
"""

import sys
from collections.abc import Sequence

from loadtests.markdown import table
from tests.faults.load import RATES, STREAM_TOKENS, said
from tests.faults.prometheus import FASTER
from tests.faults.seen import ROOT, Alert, Seen, read_all

PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- seen: python -m tests.faults -->", "<!-- end of seen -->"

HEAD = f"""## Seen by a run

`make faults` does each of these to the real service under load ({RATES["embeddings"]:g} embeddings
and {RATES["streams"]:g} streams of {STREAM_TOKENS} tokens a second, arriving at random, each on a
connection of its own), watched by a real Prometheus with the rules of `deploy/monitoring/`. So that
a run takes minutes, every duration of the rules is divided by {FASTER}: `for: 1m` is two seconds
there, so that an alert which fires within the run would fire for a fault that lasts {FASTER} times
as long. The figures are in `docs/benchmarks/faults/`; `python -m tests.faults` writes this section.

The overlay `cpu` is rendered, and its nodes are network namespaces joined by a bridge: `ray start`
with the flags and the environment of its pods, token authentication too, and Serve's configuration
given to the dashboard as KubeRay does. What is not as in pods: no limits on memory and cores, an
object store of 100 MB, sessions of one thread, and models from a folder rather than an image. Who
starts a node again is the test, in the place of Kubernetes, after 15 s, which count. Everything
shares two cores with the load and with whatever else runs there.
"""


def section(seen: Sequence[Seen]) -> str:
    """Its Markdown, between two comments."""
    parts = [BEGIN, HEAD]
    rows = [
        (
            each.fault,
            said(each.clients),
            f"{each.longest_gap_s:.1f} s",
            "–" if each.whole_s is None else f"{each.whole_s:.1f} s ({each.whole})",
            alerts(each),
        )
        for each in seen
    ]
    heads = ("fault", "requests", "longest gap", "whole again after", "alert: fired, cleared after")
    parts.append(table(heads, rows))
    parts += [f"**{each.fault}.** {detail(each)}\n" for each in seen]
    machines = {each.machine.sentence() for each in seen}
    parts.append(f"Measured on {'; '.join(sorted(machines))}.\n")
    parts.append(END)
    return "\n".join(parts)


def alerts(seen: Seen) -> str:
    """`AnatomyDown: 3.0 s, 11.9 s`."""
    return "; ".join(f"{a.name}: {a.fired_s:.0f} s, {cleared(a)}" for a in seen.alerts) or "none"


def cleared(alert: Alert) -> str:
    return "not yet" if alert.cleared_s is None else f"{alert.cleared_s:.0f} s"


def detail(seen: Seen) -> str:
    """Where it was done, why requests failed, and what else is to be said."""
    failures = ", ".join(f"{count} × {why}" for why, count in seen.failures.items())
    lost = f"Failed: {failures}." if failures else "No request failed."
    return " ".join([f"On {seen.service}.", lost, *seen.remarks])


def with_section(page: str, written: str) -> str:
    """The page with the section in its place, or at its end before what isn't held."""
    if BEGIN in page:
        before, rest = page.split(BEGIN)
        return before + written + rest.split(END)[1]
    mark = "## What isn't held"
    return page.replace(mark, f"{written}\n\n{mark}")


def main() -> int:
    PAGE.write_text(with_section(PAGE.read_text(), section(list(read_all()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
