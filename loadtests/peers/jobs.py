"""The jobs: each gives every contender the same work in turns, and says what came of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.machine import this_machine
from loadtests.peers.comparison import Comparison, Figures, Missing, Row, take_turns
from loadtests.peers.contenders import DECODERS, ENCODERS, TRANSLATORS, Contender
from loadtests.peers.limits import (
    MINILM_OPERATIONS,
    SMOLLM2_HEAD_OPERATIONS,
    SMOLLM2_OPERATIONS,
    SMOLLM2_WEIGHTS,
    Cost,
    Limits,
)
from loadtests.peers.ours_translation import sources
from loadtests.peers.stage import Run, Stage, measure_limits, stage, summary
from loadtests.peers.worker_process import Worker, WorkerFailed
from loadtests.workloads import load_texts

# The threads of whoever ran last may spin for a while; the next one's turn begins after that.
SETTLE_S = 0.5

CHECKED_TEXTS = 64
SAME_VECTORS = {"fp32": 0.99}
SAME_VECTORS_ROUNDED = 0.98  # bf16 and int8: other precision; anything below is other work

PREFILL_TOKENS = 256
PREFILL_PROMPTS = 4
ROWS = (1, 4, 8, 16)
STEPS_OF_CONTEXT = {256: 64, 2_000: 32}
CHECKED_PROMPTS, CHECKED_STEPS = 4, 16

SOURCES, SOURCE_TOKENS, TARGET_STEPS = 8, 32, 64


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near each contender's results are to ours in fp32, and what the number says."""

    meaning: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work: what a turn is, and its cost at the least, where it has a limit."""

    variant: str
    title: str
    unit: str
    turn: Callable[[Worker], Figures]
    cost: Cost | None = None


def machine_limits(run: Run) -> Iterator[Comparison]:
    """What the machine itself can do; nobody takes part."""
    yield Comparison(
        job="limits",
        variant="",
        title="The machine's limits",
        units=("10⁹ operations/s",),
        agreement="",
        rounds=1,
        machine=this_machine(),
        limits=measure_limits(run),
        rows=(),
        missing=(),
    )


def encoder(run: Run) -> Iterator[Comparison]:
    """MiniLM over the corpus, texts a second, from strings on."""
    limits = measure_limits(run)
    texts = list(load_texts())
    with stage(ENCODERS, run) as contenders:
        described = contenders.ask_all("prepare", texts=texts[::4])
        tokens = contenders.ours().ask("count", texts=texts)["tokens"]
        agreement = vectors_agreement(contenders, texts[:: max(1, len(texts) // CHECKED_TEXTS)])
        work = Work(
            "",
            f"MiniLM, {len(texts)} texts of {tokens / len(texts):.0f} tokens on average",
            "texts/s",
            lambda one: {"texts/s": len(texts) / seconds(one, "embed", texts=texts)},
            Cost(MINILM_OPERATIONS * tokens / len(texts)),
        )
        yield compare("encoder", work, run, contenders, described, limits, agreement)


def decoder(run: Run) -> Iterator[Comparison]:
    """SmolLM2-135M: prompts, and steps of several rows at two lengths of context."""
    limits = measure_limits(run)
    with stage(DECODERS, run) as contenders:
        text = " ".join(load_texts())
        prompts = {
            context: contenders.ours().ask("windows", text=text, rows=max(ROWS), length=context)
            for context in STEPS_OF_CONTEXT
        }
        short: list[list[int]] = prompts[PREFILL_TOKENS]["prompts"]
        described = contenders.ask_all("prepare", prompts=short)
        agreement = tokens_agreement(
            contenders, prompts=short[:CHECKED_PROMPTS], steps=CHECKED_STEPS
        )
        works = [prefill_work(short[:PREFILL_PROMPTS])]
        for context, steps in STEPS_OF_CONTEXT.items():
            found: list[list[int]] = prompts[context]["prompts"]
            works += [decode_work(found[:rows], steps) for rows in ROWS]
        for work in works:
            if run.wants(work.variant):
                yield compare("decoder", work, run, contenders, described, limits, agreement)


def prefill_work(prompts: list[list[int]]) -> Work:
    tokens, length = sum(map(len, prompts)), len(prompts[0])
    return Work(
        f"prefill-{length}",
        f"SmolLM2-135M, {len(prompts)} prompts of {length} tokens until each has its next",
        "prompt tokens/s",
        lambda one: {"prompt tokens/s": tokens / seconds(one, "prefill", prompts=prompts)},
        # The head is needed at the last position alone.
        Cost(SMOLLM2_OPERATIONS + SMOLLM2_HEAD_OPERATIONS / length),
    )


def decode_work(prompts: list[list[int]], steps: int) -> Work:
    rows, context = len(prompts), len(prompts[0])

    def turn(one: Worker) -> Figures:
        return {"tokens/s": rows * steps / seconds(one, "decode", prompts=prompts, steps=steps)}

    return Work(
        f"{rows}x{context}",
        f"SmolLM2-135M, {steps} steps of {rows} {'row' if rows == 1 else 'rows'} "
        f"after {context} tokens",
        "tokens/s",
        turn,
        # A step reads all weights once for all its rows.
        Cost(SMOLLM2_OPERATIONS + SMOLLM2_HEAD_OPERATIONS, SMOLLM2_WEIGHTS / rows),
    )


def translation(run: Run) -> Iterator[Comparison]:
    """A Marian of random weights, 6 + 6 layers: greedy, batch of 8."""
    limits = measure_limits(run)
    texts = sources(SOURCES, SOURCE_TOKENS)
    with stage(TRANSLATORS, run) as contenders:
        described = contenders.ask_all("prepare", sources=texts)
        agreement = tokens_agreement(contenders, sources=texts, steps=CHECKED_STEPS)

        def turn(one: Worker) -> Figures:
            took = seconds(one, "translate", sources=texts, steps=TARGET_STEPS)
            return {"tokens/s": SOURCES * TARGET_STEPS / took}

        work = Work(
            f"{SOURCES}x{SOURCE_TOKENS}",
            f"Marian, 6 + 6 layers of random weights, {SOURCES} sources of {SOURCE_TOKENS} tokens, "
            f"{TARGET_STEPS} target tokens each, greedy",
            "tokens/s",
            turn,
        )
        yield compare("translation", work, run, contenders, described, limits, agreement)


def compare(
    job: str,
    work: Work,
    run: Run,
    contenders: Stage,
    described: Mapping[str, Mapping[str, Any]],
    limits: Limits,
    agreement: Agreement,
) -> Comparison:
    """All contenders on one piece of work, in turns."""
    run.report(work.title)
    turns = take_turns(
        {name: lambda one=one: settled(work.turn, one) for name, one in contenders.workers.items()},
        run.rounds,
        run.report,
        WorkerFailed,
    )
    failed = tuple(Missing(name, summary(why)) for name, why in turns.failures.items())
    return Comparison(
        job=job,
        variant=work.variant,
        title=work.title,
        units=(work.unit,),
        agreement=agreement.meaning,
        rounds=run.rounds,
        machine=this_machine(),
        limits=limits,
        rows=tuple(
            row_of(
                contenders.contenders[name],
                described[name],
                figures,
                limit=work.cost.speed(limits, contenders.contenders[name].precision)
                if work.cost
                else None,
                agreement=agreement.values.get(name),
            )
            for name, figures in turns.figures.items()
        ),
        missing=(*contenders.missing, *failed),
    )


def row_of(
    contender: Contender,
    described: Mapping[str, Any],
    figures: dict[str, tuple[float, ...]],
    limit: float | None = None,
    agreement: float | None = None,
) -> Row:
    return Row(
        name=contender.name,
        precision=contender.precision,
        ours=contender.is_ours,
        versions=described["versions"],
        settings=described["settings"],
        figures=figures,
        limit=limit,
        agreement=agreement,
    )


def settled(turn: Callable[[Worker], Figures], one: Worker) -> Figures:
    time.sleep(SETTLE_S)
    return turn(one)


def seconds(one: Worker, do: str, **arguments: Any) -> float:
    return float(one.ask(do, **arguments)["seconds"])


def vectors_agreement(contenders: Stage, texts: Sequence[str]) -> Agreement:
    """The smallest cosine over `texts`; who is too far off did other work and is dropped."""
    found = {
        name: answer["vectors"]
        for name, answer in contenders.ask_all("vectors", texts=list(texts)).items()
    }
    reference = found[reference_of(contenders, found)]
    cosines = {
        name: min(cosine_of(a, b) for a, b in zip(vectors, reference, strict=True))
        for name, vectors in found.items()
    }
    for name, cosine in cosines.items():
        accepted = SAME_VECTORS.get(contenders.contenders[name].precision, SAME_VECTORS_ROUNDED)
        if cosine < accepted:
            contenders.drop(name, f"smallest cosine {cosine:.3f}, {accepted} is needed")
    return Agreement(f"smallest cosine against ours in fp32, over {len(texts)} texts", cosines)


def cosine_of(one: Sequence[float], other: Sequence[float]) -> float:
    """Both have length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def tokens_agreement(contenders: Stage, **asked: Any) -> Agreement:
    """The share of greedy tokens that are those of ours in fp32, until the first that is not: one
    other token makes another text."""
    found = {
        name: answer["tokens"] for name, answer in contenders.ask_all("tokens", **asked).items()
    }
    reference = found[reference_of(contenders, found)]
    shares = {name: same_start(rows, reference) for name, rows in found.items()}
    return Agreement("share of the first greedy tokens that are those of ours in fp32", shares)


def same_start(rows: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """How much of each row is the same from its start, on average."""
    shares: list[float] = []
    for row, other in zip(rows, reference, strict=True):
        length = min(len(row), len(other))
        same = next((i for i in range(length) if row[i] != other[i]), length)
        shares.append(same / length)
    return sum(shares) / len(shares)


def reference_of(contenders: Stage, found: Mapping[str, object]) -> str:
    """Ours in fp32. Raises `WorkerFailed` where it isn't running."""
    for name in found:
        contender = contenders.contenders[name]
        if contender.is_ours and contender.precision == "fp32":
            return name
    raise WorkerFailed("ours in fp32 isn't running, so that nothing can be compared to it")
