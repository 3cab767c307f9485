"""docs/load.md: what the runs have left, as tables and a plot."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from loadtests.abuse.churn import CONTEXT, MOST_GROWTH, SLOTS, Churn
from loadtests.abuse.overload import LEAST_GOODPUT, REFUSAL_GOAL_MS, Overload
from loadtests.agreement import LOCUST, OURS, THEIRS, Agreement
from loadtests.drawing import STYLE, tidy, write
from loadtests.markdown import all_in_ms, table

IMAGE = Path("images") / "benchmarks" / "overload.svg"
MIB = 2**20

INTRODUCTION = """\
# Under load and abuse

`make load` offers half a minute of mixed load to the service on port 8000, or to one that it starts
itself, and judges it by `loadtests/slos.yaml`; [capacity.md](capacity.md) has how much the service
bears. `python -m loadtests.abuse overload`, `… churn`, `python -m loadtests.agreement` and
`python -m loadtests.abuse report` measure what follows again and write this page; the raw figures
are in `docs/benchmarks/`. The service is `anatomy serve --plain` with the default models, client
and service on one machine. [faults.md](faults.md) has what is answered to each fault, and the
tests that hold it.
"""


AGREEMENT = """\
NVIDIA's [aiperf](https://pypi.org/project/aiperf/) beside ours, on one service: the same requests
over as many connections, in turns (`python -m loadtests.agreement`). Ours are the closed loop that
figures here come from, and locust's users; ratios are the medians of the rounds', against our
closed loop.
"""


def write_report(
    overload: Overload,
    churn: Churn,
    documents: Path,
    *,
    usage: str = "",
    remarks: str = "",
    agreements: Sequence[Agreement] = (),
) -> Path:
    """Write `<documents>/load.md` and its plot; give the page.

    `usage` comes first and `remarks` last; both are written by hand.
    """
    (documents / IMAGE).parent.mkdir(parents=True, exist_ok=True)
    draw(overload, documents / IMAGE)
    page = documents / "load.md"
    sections = [
        INTRODUCTION,
        usage,
        overload_text(overload),
        churn_text(churn),
        agreements_text(agreements) if agreements else "",
        remarks,
    ]
    page.write_text("\n".join(filter(None, sections)), encoding="utf-8")
    return page


def agreements_text(agreements: Sequence[Agreement]) -> str:
    """Ours beside somebody else's generator."""
    parts = [
        "## Somebody else's generator\n",
        AGREEMENT,
    ]
    for found in agreements:
        rows = [
            (
                unit,
                f"{found.median(OURS, unit):,.1f}",
                f"{found.median(LOCUST, unit):,.1f} ({found.ratio(LOCUST, unit):.3f} ×)",
                f"{found.median(THEIRS, unit):,.1f} ({found.ratio(THEIRS, unit):.3f} ×)",
            )
            for unit in found.units()
        ]
        heads = (found.task, OURS, LOCUST, THEIRS)
        parts.append(f"{found.settings}, {len(found.rounds)} rounds:\n\n{table(heads, rows)}")
    return "\n".join(parts)


def overload_text(found: Overload) -> str:
    goodput = found.goodput / found.plateau
    waits = "–" if found.retry_after_s is None else "{} to {} s".format(*found.retry_after_s)
    rows = [
        ("plateau: closed loop of 64 connections before and after", f"{found.plateau:.1f} "
         f"requests/s ({found.capacity_before:.1f}, {found.capacity_after:.1f})"),
        ("offered, open loop", f"{found.rate:.1f} requests/s for {found.seconds:.0f} s"),
        ("answered in the second half, against the plateau",
         f"{found.goodput:.1f} requests/s, {goodput:.2f} × (at least {LEAST_GOODPUT})"),
        ("answered, refused (429), lost, anything else",
         f"{found.answered}, {found.refused}, {found.lost}, {found.other}"),
        ("refusals, p50 / p90 / p99",
         f"{all_in_ms(found.refusal_ms)} (goal {REFUSAL_GOAL_MS:.0f} ms)"),
        ("answers, p50 / p90 / p99, from when they were due", all_in_ms(found.answer_ms)),
        ("Retry-After", waits),
        ("lag of the generator, p50 / p90 / p99", all_in_ms(found.lag_ms)),
    ]  # fmt: skip
    return f"""\
## Twice the capacity

Requests arrive at random (a Poisson process) at twice the rate that a closed loop gets, whether or
not those before them were answered; latency counts from when a request was due. {found.workload}.
Measured on {found.machine.sentence()}.

{table(("what", "figure"), rows)}
Those who are accepted wait behind a queue of `ANATOMY_MAX_QUEUE_REQUESTS`; a shorter queue refuses
more of them sooner.

![What was offered, answered and refused, second by second]({IMAGE.as_posix()})
"""


def churn_text(found: Churn) -> str:
    sent = [(kind, f"{count:,}") for kind, count in sorted(found.sent.items(), key=by_count)]
    held = [
        (
            f"{at.requests:,}",
            mebibytes(at.holding.resident_bytes),
            mebibytes(at.holding.own_bytes),
            str(at.holding.descriptors),
            str(at.holding.threads),
            f"{sum(at.gauges.values()):.0f}",
        )
        for at in found.snapshots
    ]
    heads = (
        "after requests",
        "resident memory",
        "without files",
        "descriptors",
        "threads",
        "in work",
    )
    return f"""\
## {found.requests:,} requests, many of them broken

{found.clients} clients at a time, of these kinds in random order; each answer has to have the
status that is right for it, and {len(found.wrong)} had another or none. From the first
{found.snapshots[1].requests:,} requests, when all is warm, to the last, memory grew by
{found.growth:.1%} (at most {MOST_GROWTH:.0%}). The key-value cache is a small one here
({SLOTS} slots of {CONTEXT} tokens), filled beforehand: it has its size from the start, but the
system counts a page of it when that is first written. Measured on {found.machine.sentence()}.

{table(heads, held)}
{table(("kind", "requests"), sent)}"""


def mebibytes(size: int | None) -> str:
    return "–" if size is None else f"{size / MIB:.0f} MiB"


def by_count(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]


def draw(found: Overload, path: Path) -> None:
    """Requests offered, answered and refused in each second, and the plateau."""
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.0, 3.2))
        seconds = range(len(found.every_second))
        for name, values in (
            ("offered", [second.offered for second in found.every_second]),
            ("answered", [second.answered for second in found.every_second]),
            ("refused", [second.refused for second in found.every_second]),
        ):
            axis.step(seconds, values, where="post", label=name, linewidth=1)
        axis.axhline(found.plateau, color="gray", linestyle="--", label="plateau", linewidth=1)
        axis.set(xlabel="seconds", ylabel="requests in a second")
        tidy(axis)
        figure.legend(frameon=False, loc="outside right center")
        write(figure, path)
