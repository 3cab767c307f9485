"""What was promised of each job, and whether a comparison keeps it."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch

from loadtests.peers.comparison import Comparison, Row, leads


class Verdict(StrEnum):
    AIM = "aim met"
    MUST = "must met"
    MISSED = "not met"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """The best of `ours` has to be `must` times ahead of the best of `rivals`; `aim` is better.

    Both are shell patterns over the rows' names. Rivals are others' unless their pattern names
    ours. Ahead in milliseconds is so many times shorter. The aim asks for `share` of the limit too.
    """

    work: str
    comparison: str
    unit: str
    must: float
    aim: float
    ours: str = "ours-*"
    rivals: str = "*"
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal held against a comparison: who met whom, and the lead round by round."""

    goal: Goal
    verdict: Verdict
    mine: str = ""
    rival: str = ""
    leads: tuple[float, ...] = ()

    @property
    def lead(self) -> float:
        return statistics.median(self.leads)


AHEAD = 1.0

GOALS = (
    Goal(
        "MiniLM offline, int8, against the best peer", "encoder", "texts/s", 1.5, 2.0, "ours-int8"
    ),
    Goal(
        "MiniLM offline, fp32, against the best fp32 peer",
        "encoder",
        "texts/s",
        1.1,
        1.25,
        "ours-fp32",
        "*-fp32",
    ),
    Goal("SmolLM2 prefill, 256 tokens", "decoder-prefill-256", "prompt tokens/s", 1.25, 1.5),
    *(
        Goal(
            f"SmolLM2 decode after 256 tokens, rows: {rows}",
            f"decoder-{rows}x256",
            "tokens/s",
            must,
            1.5,
        )
        for rows, must in ((1, 1.2), (4, 1.3), (8, 1.25), (16, 1.25))
    ),
    *(
        Goal(
            f"SmolLM2 decode after 2,000 tokens, rows: {rows}",
            f"decoder-{rows}x2000",
            "tokens/s",
            AHEAD,
            1.5,
        )
        for rows in (1, 4, 8, 16)
    ),
    *(
        Goal(
            f"HTTP embeddings, {connections} connections, against infinity",
            f"http-{connections}",
            "requests/s",
            8.0,
            15.0,
            "ours-*",
            "infinity*",
        )
        for connections in (16, 64)
    ),
    Goal(
        "HTTP p50, 1 connection, against infinity",
        "http-1",
        "p50 ms",
        3.0,
        10.0,
        "ours-*",
        "infinity*",
    ),
    *(
        Goal(
            f"Ray Serve against plain uvicorn, {precision}, {connections} connections",
            f"http-{connections}",
            "requests/s",
            0.85,
            0.95,
            f"ours-{precision}-ray",
            f"ours-{precision}-plain",
        )
        for precision in ("fp32", "int8")
        for connections in (16, 64)
    ),
    Goal(
        "encoder-decoder, batch of 8, greedy, against CTranslate2",
        "translation-8x32",
        "tokens/s",
        AHEAD,
        1.5,
    ),
    *(
        Goal(
            f"BERT of base size on a GPU, {lengths} tokens, against PyTorch",
            f"gpu-encoder-{lengths}",
            "tokens/s",
            1.2,
            1.5,
        )
        for lengths in ("128", "512", "mixed")
    ),
    *(
        Goal(
            f"Llama of 1B on a GPU, decode, rows: {rows}, against transformers",
            f"gpu-decoder-{rows}x256",
            "tokens/s",
            1.5,
            1.5,
            share=share,
        )
        for rows, share in ((1, 0.6), (8, 0.0), (64, 0.0))
    ),
    Goal(
        "Llama of 1B on a GPU, prefill, against transformers",
        "gpu-decoder-prefill-2048",
        "prompt tokens/s",
        AHEAD,
        AHEAD,
        share=0.5,
    ),
    Goal(
        "MiniLM over HTTP on a GPU, against sentence-transformers in a process",
        "gpu-http-minilm",
        "texts/s",
        1.5,
        1.5,
    ),
)


def outcome(goal: Goal, comparisons: Mapping[str, Comparison]) -> Outcome:
    """`goal` held against the comparison it is about, if that was measured."""
    found = comparisons.get(goal.comparison)
    if found is None:
        return Outcome(goal, Verdict.UNKNOWN)
    against_ours = goal.rivals.startswith("ours")
    mine = [row for row in found.rows if row.ours and fnmatch(row.name, goal.ours)]
    rivals = [
        row for row in found.rows if row.ours == against_ours and fnmatch(row.name, goal.rivals)
    ]
    if not mine or not rivals:
        return Outcome(goal, Verdict.UNKNOWN)
    best, rival = found.best(mine, goal.unit), found.best(rivals, goal.unit)
    return judged(goal, best, rival)


def judged(goal: Goal, mine: Row, rival: Row) -> Outcome:
    found = leads(mine, rival, goal.unit)
    lead = statistics.median(found)
    share = mine.share(goal.unit) or 0.0
    if lead >= goal.aim and share >= goal.share:
        verdict = Verdict.AIM
    else:
        verdict = Verdict.MUST if lead >= goal.must else Verdict.MISSED
    return Outcome(goal, verdict, mine.name, rival.name, found)
