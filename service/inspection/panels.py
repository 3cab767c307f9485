"""Attention patterns as pictures: a grid for the terminal, PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from service.errors import InvalidRequest
from service.inspection.inquiry import Part
from service.inspection.model import Seen
from service.messages import Floats

SHADES = ((0.75, "██"), (0.5, "▓▓"), (0.25, "▒▒"), (0.1, "░░"), (0.02, "··"), (0.0, "  "))
"""From which weight on a cell looks so: readable without colours too."""
CAUTION = (
    "Attention says where information was read from, not what it was used for: a weight is no "
    "explanation of an answer."
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One head of one attention: weights [queries, keys] and the tokens at both sides."""

    title: str
    weights: Floats
    queries: tuple[str, ...]
    keys: tuple[str, ...]


def panels_of(seen: Seen) -> list[Panel]:
    """Every head whose pattern an answer has."""
    rows = [
        tuple(str(token["token"]) for token in sequence["tokens"])
        for sequence in seen.answer["sequences"]
    ]
    return [
        Panel(
            title_of(attention, head),
            seen.tensors[f"{attention['name']}.{Part.PATTERN}"][place],
            rows[int(attention["queries"])],
            rows[int(attention["keys"])],
        )
        for attention in seen.answer["attentions"]
        for place, head in enumerate(attention["heads"])
    ]


def title_of(attention: dict[str, Any], head: int) -> str:
    """Which attention and head it is, and what is special about it."""
    kv_head = attention["kv_heads"][attention["kv_head_of"][attention["heads"].index(head)]]
    notes = [f"{attention['stack']}, layer {attention['layer']}, head {head}"]
    notes += ["cross-attention"] if attention["kind"] == "cross" else []
    notes += [f"reads key-value head {kv_head}"] if kv_head != head else []
    notes += [f"local, window {attention['window']}"] if attention["window"] else []
    return ", ".join(notes)


def grid(panel: Panel) -> Group:
    """A shaded grid for a terminal: a row for each query, a column for each key."""
    table = Table(box=None, padding=(0, 0))
    table.add_column("", justify="right")
    for place in range(len(panel.keys)):
        table.add_column(str(place), justify="center", min_width=2, no_wrap=True)
    table.add_column("  largest", justify="left")
    for place, (token, weights) in enumerate(zip(panel.queries, panel.weights, strict=True)):
        best = int(weights.argmax())
        cells = [Text(shade(float(weight)), style="cyan") for weight in weights]
        largest = Text(f"│ {weights[best]:.2f} {visible(panel.keys[best])}")
        table.add_row(Text(f"{visible(token)} {place} │"), *cells, largest)
    return Group(Text(panel.title, style="bold"), table)


def shade(weight: float) -> str:
    """Two characters, the darker the larger the weight."""
    return next(mark for least, mark in SHADES if weight >= least or least == 0.0)


def visible(token: str) -> str:
    """A token with its spaces and line ends to be seen."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def findings(seen: Seen) -> list[str]:
    """What an answer says beside its tensors, a line each."""
    answer, lines = seen.answer, list[str]()
    for place in answer.get("next_tokens", ()):
        likely = ", ".join(
            f"{visible(token['text'])} {token['probability']:.3f}" for token in place["tokens"]
        )
        lines.append(f"next after token {place['position']}: {likely}")
    if "cosine" in answer:
        lines.append(f"cosine of the two texts: {answer['cosine']:.4f}")
    if "class_scores" in answer:
        best = sorted(answer["class_scores"], key=lambda row: -row["probability"])[:5]
        lines.append(
            "classes: " + ", ".join(f"{row['label']} {row['probability']:.3f}" for row in best)
        )
    if "attributions" in answer:
        told, tokens = answer["attributions"], answer["sequences"][0]["tokens"]
        drops = zip(tokens, told["drops"], strict=True)
        said = (f"{visible(t['token'])} {drop:+.3f}" for t, drop in drops if drop is not None)
        lines.append(f"{told['label']} loses without: {', '.join(said)}")
    served = answer["graph"]["served"]
    lines.append(
        f"shown in float32; what is served, in {served['precision']}, is at most "
        f"{served['distance']['largest_error']:.1e} of the outputs' scale away, on the texts that "
        "it was exported with"
    )
    return lines


def save_png(panels: Sequence[Panel], file: Path) -> None:
    """A picture of all panels, one under another. Raises `InvalidRequest` without matplotlib."""
    try:
        figures: Any = import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "--png needs matplotlib, which is not installed; pip install "
            "'transformer-anatomy[load]' brings it, --html needs nothing"
        ) from error
    widths = [2 + 0.35 * len(panel.keys) for panel in panels]
    heights = [2 + 0.35 * len(panel.queries) for panel in panels]
    figure = figures.Figure(figsize=(max(widths), sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        axis.imshow(panel.weights, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(panel.title, fontsize=9)
        axis.set_xticks(range(len(panel.keys)), labels=map(plain, panel.keys), rotation=90)
        axis.set_yticks(range(len(panel.queries)), labels=map(plain, panel.queries))
    figure.savefig(file, dpi=150, format="png")


def plain(token: str) -> str:
    """A token as a picture's fonts have it; a dollar would begin a formula."""
    return token.replace("$", r"\$").replace("\n", r"\n")
