"""The parity table: `python -m tests.support.families.table` writes `docs/parity.md`.

Every family, every case, several seeds: what the tests hold, as figures. Takes some minutes.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import transformers
import typer
from rich.progress import track

from export.artifact import Parity, Precision
from model_core.families import FAMILIES
from tests.support.families import CASES, Case
from tests.support.families.exported import main_head, receipts
from tests.support.families.parity import (
    largest_weights,
    load_ours,
    our_greedy,
    parity_error,
    reference_greedy,
    round_trip_error,
)

STEPS = 32
PAGE = Path(__file__).parents[3] / "docs" / "parity.md"


@dataclass
class Row:
    """A family's worst figures over its cases and seeds."""

    cases: int = 0
    sharpness: float = 1.0
    outputs: dict[str | None, float] = field(default_factory=lambda: defaultdict(float))
    round_trip: float = 0.0
    greedy: tuple[int, int] = (0, 0)
    fp32: float = 0.0
    int8: list[Parity] = field(default_factory=list)

    def take_in(self, case: Case, seeds: Sequence[int], folder: Path) -> None:
        """The figures of one case."""
        self.cases += 1
        for seed in seeds:
            here = folder / str(seed)
            for head in (None, *case.heads):
                place = here / (head or "hidden")
                error = parity_error(case, head, seed, place / "there")
                self.outputs[head] = max(self.outputs[head], error)
                error = round_trip_error(case, head, seed, place / "back")
                self.round_trip = max(self.round_trip, error)
            self.sharpness = min(self.sharpness, largest_weights(case, seed, here / "weights"))
            writer = main_head(case)
            if writer is not None:
                reference = case.reference(writer, seed)
                ours = load_ours(reference, here / "greedy", [writer])
                prompt = case.token_ids(seed)[0]
                same = our_greedy(ours, writer, prompt, STEPS) == reference_greedy(
                    reference, prompt, STEPS
                )
                self.greedy = (self.greedy[0] + same, self.greedy[1] + 1)
        found = receipts(case, folder / "exported")
        self.fp32 = max(self.fp32, found[Precision.FP32].largest_error)
        self.int8.append(found[Precision.INT8])


def measure(cases: Iterable[Case], seeds: Sequence[int]) -> dict[str, Row]:
    """The rows by family."""
    rows: dict[str, Row] = defaultdict(Row)
    for case in cases:
        with TemporaryDirectory() as folder:
            rows[case.family].take_in(case, seeds, Path(folder))
    return rows


def page(rows: dict[str, Row], seeds: Sequence[int]) -> str:
    """The document."""
    titles = {name: family.title for family in FAMILIES for name in family.names}
    heads = sorted({head for row in rows.values() for head in row.outputs if head})
    total = sum(row.cases for row in rows.values())
    columns = (
        "Family", "Cases", "Attention", "Hidden states", "Heads", "Back", "Greedy", "ONNX fp32",
        "ONNX int8",
    )  # fmt: skip
    lines = [
        "# Parity: every family against the reference",
        "",
        f"Written by `python -m tests.support.families.table`: {total} configurations, "
        f"{len(seeds)} seeds each, tiny and oddly shaped (`tests/support/families`), every weight, "
        "bias and gain drawn so that it matters. The reference is transformers "
        f"{transformers.__version__} (PyTorch's own layers for the original Transformer) in "
        "float32. The tests hold these figures (`tests/parity/test_family_*.py`), and "
        "`test_mutants.py` shows that every field and every key rule of each family's first "
        "configuration and main head, changed, is caught.",
        "",
        "Errors are the largest difference over the largest magnitude, over all cases and seeds. "
        "*Attention*: the mean largest attention weight, in the least sharp case. *Back*: the "
        "reference loads what we save; how far it is from the one that we loaded. *Greedy*: runs "
        f"of {STEPS} tokens that are equal. *ONNX*: our PyTorch model against ONNX Runtime, "
        "encoders with texts of several lengths in one batch, decoders through their cache; *int8* "
        "with the products quantised that are in a model of a real size, which a model of width 32 "
        "with random weights bears worse than a trained one (smallest cosine, and the share of "
        "equal likeliest tokens, in the worst case).",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for name, row in rows.items():
        worst_head = max((error for head, error in row.outputs.items() if head), default=0.0)
        cosine = min(receipt.smallest_cosine for receipt in row.int8)
        agreements = [r.top1_agreement for r in row.int8 if r.top1_agreement is not None]
        int8 = f"{cosine:.3f}" + (f", {min(agreements):.0%}" if agreements else "")
        greedy = f"{row.greedy[0]} of {row.greedy[1]}" if row.greedy[1] else "–"
        lines.append(
            f"| {titles[name]} (`{name}`) | {row.cases} | {row.sharpness:.2f} | "
            f"{row.outputs[None]:.0e} | {worst_head:.0e} | {row.round_trip:.0e} | {greedy} | "
            f"{row.fp32:.0e} | {int8} |"
        )
    lines += [
        "",
        "## Each head",
        "",
        "| Family | " + " | ".join(f"`{head}`" for head in heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for name, row in rows.items():
        errors = (f"{row.outputs[head]:.0e}" if head in row.outputs else "–" for head in heads)
        lines.append(f"| {titles[name]} | " + " | ".join(errors) + " |")
    return "\n".join(lines) + "\n"


def main(
    seeds: Annotated[int, typer.Option(help="How many sets of weights for each case.")] = 3,
    only: Annotated[str, typer.Option(help="Families whose name has this in it.")] = "",
    output: Annotated[Path, typer.Option(help="Where the page goes.")] = PAGE,
) -> None:
    """Measure every family against the reference and write the table."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    chosen = [case for case in CASES if only in case.family]
    rows = measure(track(chosen, "comparing"), range(seeds))
    output.write_text(page(rows, range(seeds)), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    typer.run(main)
