"""A progress bar for batches, on standard error.

with bar(len(texts)) as progress:
    vectors = client.embed(texts, model="minilm", progress=progress)
"""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from service.client.calls import Progress


@contextmanager
def bar(
    total: int | None, *, what: str = "texts", console: Console | None = None
) -> Generator[Progress]:
    """Shows how many of `total` items are done; gives what is told of each batch."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console or Console(stderr=True)) as bars:
        task = bars.add_task(what, total=total)

        def advance(items: int) -> None:
            bars.advance(task, items)

        yield advance
