"""How figures grow: with texts' length, queued requests, rows, context and prompts' length."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.machine import Machine, this_machine
from loadtests.peers.comparison import take_turns
from loadtests.peers.contenders import DECODERS, ENCODERS
from loadtests.peers.jobs import seconds, settled
from loadtests.peers.stage import Run, Stage, stage
from loadtests.peers.worker_process import Worker, WorkerFailed
from loadtests.workloads import load_texts

PREFIX = "growth-"

LENGTHS = (8, 16, 32, 64, 128, 256)
LENGTH_TOKENS = 8192
"""Tokens a turn, whatever the length."""
QUEUED = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
SHORT_QUEUE_REPEATS = 20
"""A queue of a few texts is over in milliseconds: it is filled several times."""

ROWS = (1, 2, 4, 8, 12, 16)
ROWS_CONTEXT = 256
CONTEXTS = (128, 256, 512, 1_024, 2_000)
CONTEXT_ROWS = 4
STEPS = 32
PROMPTS = (16, 64, 128, 256, 512, 1_024, 2_000)
PROMPT_TOKENS = 1_024


@dataclass(frozen=True, slots=True)
class Point:
    """What a contender did at one place of the horizontal axis, round by round."""

    at: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    ours: bool
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """One plot: lines over an axis. `left_out` says who failed where, and why."""

    subject: str
    title: str
    axis: str
    unit: str
    rounds: int
    machine: Machine
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]

    @property
    def name(self) -> str:
        return PREFIX + self.subject


@dataclass(frozen=True, slots=True)
class Place:
    """One place of the axis and a turn there, which gives a speed."""

    at: int
    turn: Callable[[Worker], float]


@dataclass(frozen=True, slots=True)
class Windows:
    """Prompts cut from the corpus by one of ours."""

    cutter: Worker

    def cut(self, rows: int, length: int) -> list[list[int]]:
        text = " ".join(load_texts())
        return self.cutter.ask("windows", text=text, rows=rows, length=length)["prompts"]

    def cut_tokens(self, length: int) -> list[list[int]]:
        """As many prompts as make a turn's tokens, at least one."""
        return self.cut(max(1, min(16, PROMPT_TOKENS // length)), length)


def curves(run: Run) -> Iterator[Curve]:
    """Encoders' first, then decoders'; `run.only` chooses by subject."""
    if any(map(run.wants, ("length", "queue"))):
        with stage(ENCODERS, run) as contenders:
            contenders.ask_all("prepare", texts=list(load_texts())[::4])
            yield from encoder_curves(contenders, run)
    if any(map(run.wants, ("rows", "context", "prompt"))):
        with stage(DECODERS, run) as contenders:
            windows = Windows(contenders.ours())
            contenders.ask_all("prepare", prompts=windows.cut(max(ROWS), ROWS_CONTEXT))
            yield from decoder_curves(contenders, windows, run)


def encoder_curves(contenders: Stage, run: Run) -> Iterator[Curve]:
    if run.wants("length"):
        texts = {length: texts_of(length, contenders.ours()) for length in LENGTHS}
        yield draw(
            "length",
            "MiniLM, by tokens of a text",
            "tokens of a text",
            "texts/s",
            [Place(length, embedding(found)) for length, found in texts.items()],
            contenders,
            run,
        )
    if run.wants("queue"):
        yield draw(
            "queue",
            "MiniLM, texts queued at once (ours a request each, others one call)",
            "texts in the queue",
            "texts/s",
            [Place(count, queueing(texts_in_queue(count))) for count in QUEUED],
            contenders,
            run,
        )


def embedding(texts: list[str]) -> Callable[[Worker], float]:
    return lambda one: len(texts) / seconds(one, "embed", texts=texts)


def queueing(texts: list[str]) -> Callable[[Worker], float]:
    repeats = SHORT_QUEUE_REPEATS if len(texts) <= 10 else 1

    def turn(one: Worker) -> float:
        took = sum(seconds(one, "queue", texts=texts) for _ in range(repeats))
        return repeats * len(texts) / took

    return turn


def decoder_curves(contenders: Stage, windows: Windows, run: Run) -> Iterator[Curve]:
    subjects = (
        (
            "rows",
            f"SmolLM2-135M, decoding after {ROWS_CONTEXT} tokens, by rows",
            "rows",
            [Place(rows, decoding(windows.cut(rows, ROWS_CONTEXT))) for rows in ROWS],
        ),
        (
            "context",
            f"SmolLM2-135M, decoding {CONTEXT_ROWS} rows, by context",
            "tokens in each row before",
            [Place(length, decoding(windows.cut(CONTEXT_ROWS, length))) for length in CONTEXTS],
        ),
        (
            "prompt",
            "SmolLM2-135M, prompts until each has its next token, by length",
            "tokens of a prompt",
            [Place(length, prompting(windows.cut_tokens(length))) for length in PROMPTS],
        ),
    )
    for subject, title, axis, places in subjects:
        if run.wants(subject):
            yield draw(subject, title, axis, "tokens/s", places, contenders, run)


def decoding(prompts: list[list[int]]) -> Callable[[Worker], float]:
    done = len(prompts) * STEPS
    return lambda one: done / seconds(one, "decode", prompts=prompts, steps=STEPS)


def prompting(prompts: list[list[int]]) -> Callable[[Worker], float]:
    return lambda one: sum(map(len, prompts)) / seconds(one, "prefill", prompts=prompts)


def draw(
    subject: str,
    title: str,
    axis: str,
    unit: str,
    places: Sequence[Place],
    contenders: Stage,
    run: Run,
) -> Curve:
    """All contenders at all places, in turns."""
    points: dict[str, list[Point]] = {name: [] for name in contenders.workers}
    left_out: list[str] = []
    for place in places:
        run.report(f"{title}: {place.at}")
        turns = take_turns(
            {
                name: lambda one=one, place=place: settled(lambda one: {unit: place.turn(one)}, one)
                for name, one in contenders.workers.items()
            },
            run.rounds,
            run.report,
            WorkerFailed,
        )
        for name, found in turns.figures.items():
            points[name].append(Point(place.at, found[unit]))
        left_out += [f"{name} at {place.at}: {why}" for name, why in turns.failures.items()]
    return Curve(
        subject=subject,
        title=title,
        axis=axis,
        unit=unit,
        rounds=run.rounds,
        machine=this_machine(),
        lines=tuple(
            Line(name, contenders.contenders[name].is_ours, tuple(found))
            for name, found in points.items()
        ),
        left_out=(*left_out, *(f"{one.name}: {one.reason}" for one in contenders.missing)),
    )


def texts_of(length: int, counter: Worker) -> list[str]:
    """Texts of `length` tokens, or one or two fewer, from the corpus put end to end."""
    words = iter(" ".join(load_texts()).split())
    texts: list[str] = []
    while len(texts) < LENGTH_TOKENS // length:
        some = list(islice(words, length))
        if not some:
            words = iter(" ".join(load_texts()).split())
            continue
        # A word has a token at least, and a text two more around it.
        while (
            len(some) > 1
            and (excess := counter.ask("count", texts=[" ".join(some)])["tokens"] - length) > 0
        ):
            del some[-max(1, excess // 2) :]
        texts.append(" ".join(some))
    return texts


def texts_in_queue(count: int) -> list[str]:
    """From all over the corpus, again and again where it is too small: lengths mix alike."""
    texts = load_texts()
    stride = max(1, len(texts) // count)
    return [texts[place * stride % len(texts)] for place in range(count)]


def save(curve: Curve, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{curve.name}.json"
    path.write_bytes(TypeAdapter(Curve).dump_json(curve, indent=1) + b"\n")
    return path


def read(path: Path) -> Curve:
    """Raises pydantic's `ValidationError` for a file that holds no curve."""
    return TypeAdapter(Curve).validate_json(path.read_bytes())
