"""The commands that run a model without a service: texts in, JSON lines out."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from itertools import islice
from typing import Annotated, Any, TextIO

import typer

from export.artifact import Precision
from export.catalogue import is_embedded, trunk_of
from service.client.bar import bar
from service.commands import PrecisionOption, Row, expected_errors, make_settings, write
from service.entities import Aggregation, entities_of
from service.errors import InvalidRequest
from service.living import ModelGroup
from service.messages import (
    Inputs,
    Sampling,
    ServedModel,
    Task,
    TokenClassificationModel,
    TokenIds,
)
from service.metrics import Metrics
from service.registry import Registry
from service.spans import cut_spans

WINDOW = 1024  # lines read ahead, so that a batch finds texts of like length
CONCURRENT = 32  # generations at a time: as many as there are slots

app = typer.Typer(add_completion=False, no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="A model's name or source; see `anatomy models`.")]
File = Annotated[typer.FileText | None, typer.Argument(
    help="A text a line; standard input where none is named.")]  # fmt: skip


@app.command(epilog="Examples:  anatomy embed minilm texts.txt > vectors.jsonl · "
             "cat texts.txt | anatomy embed minilm --precision int8")  # fmt: skip
def embed(
    model: Model,
    file: File = None,
    precision: PrecisionOption = None,
    truncate: Annotated[bool, typer.Option(
        "--truncate", help="Cut texts that are too long instead of stopping.")] = False,
) -> None:  # fmt: skip
    """A text a line in, {"index", "embedding"} a line out."""

    async def work(registry: Registry, lines: Sequence[str], first: int) -> list[Row]:
        served = registry.embedding(model if is_embedded(model) else None)
        vectors = (await served.embed(encode(served, lines, first, truncate=truncate))).values
        return [{"index": first + i, "embedding": vector} for i, vector in enumerate(vectors)]

    run_offline(model, precision, file, work)


@app.command(epilog="Examples:  echo 'a large wild cat' | anatomy classify supersense · "
             "anatomy classify supersense glosses.txt --top 3")  # fmt: skip
def classify(
    model: Model,
    file: File = None,
    precision: PrecisionOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels a text gets.")] = 1,
    truncate: Annotated[bool, typer.Option(
        "--truncate", help="Cut texts that are too long instead of stopping.")] = False,
) -> None:  # fmt: skip
    """A text a line in, {"index", "labels": [{"label", "prob"}]} a line out.

    Of a model that labels tokens {"index", "entities": [{"label", "score", "start", "end"}]}.
    """

    async def work(registry: Registry, lines: Sequence[str], first: int) -> list[Row]:
        # A source's own classifier is called as the artifact is; embedded ones have names.
        name = model if is_embedded(model) else None
        if registry.classifier(name).card.task is Task.CLASSIFY_TOKENS:
            tagger = registry.token_classification(name)
            return await entities(tagger, lines, first, truncate=truncate)
        served = registry.classification(name)
        inputs = Inputs.whole(encode(served, lines, first, truncate=truncate))
        probs = (await served.classify(inputs)).values
        labels = served.card.labels
        return [
            {
                "index": first + i,
                "labels": [
                    {"label": labels[best], "prob": float(row[best])}
                    for best in (-row).argsort()[:top]
                ],
            }
            for i, row in enumerate(probs)
        ]

    run_offline(model, precision, file, work)


@app.command(epilog="Examples:  echo 'Time flies like' | anatomy generate smollm2 · "
             "anatomy generate smollm2 prompts.txt --max-tokens 64 --temperature 0")  # fmt: skip
def generate(
    model: Model,
    file: File = None,
    precision: PrecisionOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 128,
    temperature: Annotated[float, typer.Option(
        min=0.0, max=2.0, help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="For a temperature above 0.")] = 0,
    chat: Annotated[bool, typer.Option(
        "--chat", help="Put each line into the model's chat template.")] = False,
) -> None:  # fmt: skip
    """A prompt a line in, {"index", "text", "finish_reason"} a line out."""

    async def work(registry: Registry, lines: Sequence[str], first: int) -> list[Row]:
        served = registry.generation()
        tokenizer = served.tokenizer
        if chat:
            texts = [tokenizer.render_chat([{"role": "user", "content": line}]) for line in lines]
            prompts = [tokenizer.encode(text, special_tokens=False) for text in texts]
        else:
            prompts = tokenizer.encode_batch(lines)
        card, own = served.card, served.card.generation
        if max_tokens > card.room(1):
            raise InvalidRequest(
                f"--max-tokens is {max_tokens}; with a prompt of one token at most "
                f"{card.room(1)} are accepted"
            )
        limit = card.max_input_tokens if own.has_source else card.max_tokens - max_tokens
        check_lengths(prompts, limit, first)
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            beams=own.beams if temperature == 0 else 1,
            length_penalty=own.length_penalty,
            early_stopping=own.early_stopping,
        )
        gate = asyncio.Semaphore(CONCURRENT)

        async def one(index: int, prompt: TokenIds) -> Row:
            async with gate:
                chunks = [chunk async for chunk in served.generate(prompt, sampling)]
            text = "".join(chunk.text for chunk in chunks)
            return {"index": index, "text": text, "finish_reason": chunks[-1].finish_reason}

        return await asyncio.gather(*(one(first + i, p) for i, p in enumerate(prompts)))

    run_offline(model, precision, file, work)


def encode(
    served: ServedModel, lines: Sequence[str], first: int, *, truncate: bool
) -> list[TokenIds]:
    """Token ids of `lines`, of which the first has the number `first`."""
    prompt = served.card.prompt
    encoded = served.tokenizer.encode_batch([prompt + line for line in lines])
    limit = served.card.max_input_tokens
    if truncate:
        return [served.tokenizer.cut(ids, limit) for ids in encoded]
    check_lengths(encoded, limit, first)
    return encoded


async def entities(
    served: TokenClassificationModel, lines: Sequence[str], first: int, *, truncate: bool
) -> list[Row]:
    """The entities of `lines`, of which the first has the number `first`."""
    spans = [served.tokenizer.spans(line) for line in lines]
    limit = served.card.max_input_tokens
    if truncate:
        spans = [cut_spans(row, limit, left=False) for row in spans]
    token_ids = [[span.token_id for span in row] for row in spans]
    check_lengths(token_ids, limit, first)
    scores = (await served.classify_tokens(Inputs.whole(token_ids))).values
    found = [
        entities_of(row, served.probabilities(each), served.card.labels, Aggregation.SIMPLE)
        for row, each in zip(spans, scores, strict=True)
    ]
    return [
        {
            "index": first + index,
            "entities": [
                {"label": e.label, "score": e.score, "start": e.start, "end": e.stop} for e in row
            ],
        }
        for index, row in enumerate(found)
    ]


def check_lengths(encoded: Sequence[TokenIds], limit: int, first: int) -> None:
    """Raise `InvalidRequest` for the first line that is empty or has more than `limit` tokens."""
    for index, ids in enumerate(encoded, first):
        if not 1 <= len(ids) <= limit:
            raise InvalidRequest(
                f"line {index + 1} has {len(ids)} tokens; 1 to {limit} are accepted"
            )


def run_offline(
    model: str,
    precision: Precision | None,
    file: TextIO | None,
    work: Callable[[Registry, Sequence[str], int], Coroutine[Any, Any, list[Row]]],
) -> None:
    """Load `model`, give its lines to `work` a window at a time, write what comes as JSON lines."""
    with expected_errors():
        source = file or sys.stdin
        settings = make_settings(models=[trunk_of(model)], precision=precision)
        registry = Registry()
        group = ModelGroup(settings, registry, Metrics())

        async def session() -> None:
            async with group.lifespan():
                async for rows in windows(source):
                    write(await work(registry, rows[1], rows[0]))

        asyncio.run(session())


async def windows(source: TextIO) -> AsyncIterator[tuple[int, list[str]]]:
    """The lines of `source`, a window at a time with the number of its first, under a bar."""
    with bar(count_lines(source), what="lines") as progress:
        done = 0
        lines = (line.rstrip("\r\n") for line in source)
        while window := list(islice(lines, WINDOW)):
            yield done, window
            done += len(window)
            progress(len(window))


def count_lines(source: TextIO) -> int | None:
    """How many lines a file has; None for a pipe, which can be read only once."""
    if not source.seekable():
        return None
    start = source.tell()
    total = sum(1 for _ in source)
    source.seek(start)
    return total
