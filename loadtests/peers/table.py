"""A comparison as a table, on the terminal and in markdown."""

import statistics
from collections.abc import Sequence

from rich.table import Table

from loadtests.peers.comparison import Comparison, Row, leads
from loadtests.peers.limits import Limits, Product


def as_table(found: Comparison) -> Table:
    """For a terminal: settings and versions are lines of their own (`settings_lines`)."""
    columns = header(found)[:-2]
    table = Table(title=found.title)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in ranked(found):
        table.add_row(row.name, *cells(found, row)[1:-2], style="bold" if row.ours else None)
    return table


def settings_lines(found: Comparison) -> list[str]:
    return [f"{row.name}: {row.settings} ({row.versions})" for row in ranked(found)]


def as_markdown(found: Comparison) -> str:
    """The heading, the table, and who is missing."""
    columns = header(found)
    lines = [
        f"### {found.title}",
        "",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
        *(f"| {' | '.join(cells(found, row))} |" for row in ranked(found)),
        "",
        *(f"- {name}: no figures. {reason}" for name, reason in absences(found)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def absences(found: Comparison) -> list[tuple[str, str]]:
    return [(one.name, one.reason) for one in found.missing]


def ranked(found: Comparison) -> list[Row]:
    """Rows from the slowest to the fastest."""
    return sorted(found.rows, key=lambda row: row.median(found.unit))


def header(found: Comparison) -> list[str]:
    columns = ["", found.unit, "range", *found.units[1:]]
    columns += [f"{row.name} ahead" for row in ours(found)]
    columns += ["of the limit"] if any(row.limit for row in found.rows) else []
    columns += ["agreement"] if found.agreement else []
    return [*columns, "settings", "versions"]


def cells(found: Comparison, row: Row) -> list[str]:
    values = row.figures[found.unit]
    line = [
        f"**{row.name}**" if row.ours else row.name,
        number(row.median(found.unit)),
        f"{number(min(values))}–{number(max(values))}",
        *(number(row.median(unit)) for unit in found.units[1:]),
        *(lead_text(mine, row, found.unit) for mine in ours(found)),
    ]
    if any(each.limit for each in found.rows):
        share = row.share(found.unit)
        line.append("" if share is None else f"{share:.0%}")
    if found.agreement:
        line.append("" if row.agreement is None else f"{row.agreement:.4f}".rstrip("0").rstrip("."))
    return [*line, row.settings, row.versions]


def limits_lines(limits: Limits) -> list[tuple[str, ...]]:
    """Products by shape, a row for each library and precision, and what reading memory gives."""
    makers = sorted({(one.precision, one.library) for one in limits.products})
    shapes = shapes_of(limits)
    speed = {
        (one.precision, one.library, shape_of(one)): number(one.giga_operations)
        for one in limits.products
    }
    return [
        (f"{precision}, {library}", *(speed.get((precision, library, s), "") for s in shapes))
        for precision, library in makers
    ]


def limits_table(found: Comparison) -> Table:
    limits = required(found)
    table = Table("10⁹ operations/s", *shapes_of(limits), title=found.title)
    for line in limits_lines(limits):
        table.add_row(*line)
    table.caption = readings_text(limits)
    return table


def limits_markdown(found: Comparison) -> str:
    limits = required(found)
    columns = ("10⁹ operations/s", *shapes_of(limits))
    lines = [
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
        *(f"| {' | '.join(line)} |" for line in limits_lines(limits)),
        "",
        readings_text(limits),
    ]
    return "\n".join(lines) + "\n"


def required(found: Comparison) -> Limits:
    if found.limits is None:
        raise ValueError(f"{found.name} has no limits")
    return found.limits


def readings_text(limits: Limits) -> str:
    said = [
        f"{number(one.giga_bytes)} · 10⁹ bytes/s with {one.threads} "
        f"{'thread' if one.threads == 1 else 'threads'}"
        for one in limits.readings
    ]
    return f"Memory is read at {', '.join(said)}."


def shapes_of(limits: Limits) -> list[str]:
    return list(dict.fromkeys(shape_of(one) for one in limits.products))


def shape_of(product: Product) -> str:
    return f"{product.rows} × {product.inputs} × {product.outputs}"


def ours(found: Comparison) -> Sequence[Row]:
    return [row for row in found.rows if row.ours]


def lead_text(mine: Row, other: Row, unit: str) -> str:
    """The median lead with its range, or nothing for a row against itself."""
    if mine.name == other.name:
        return ""
    found = leads(mine, other, unit)
    return f"{statistics.median(found):.2f} × ({min(found):.2f}–{max(found):.2f})"


def number(value: float) -> str:
    """Three or four digits that matter."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
