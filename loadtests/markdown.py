"""Parts of the pages that runs write."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: its headings, and then its rows."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_ms(value: float | None) -> str:
    """Milliseconds without a unit; a dash for what there is no figure of."""
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def all_in_ms(found: dict[str, float | None]) -> str:
    """`4.1 / 12 / 40 ms`."""
    return " / ".join(map(in_ms, found.values())) + " ms"
