"""A case of the family tree as an artifact, and ours in PyTorch to hold it to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.artifact import Artifact, CacheLayout, Parity, Precision
from export.catalogue import recipe
from export.parity import compare, worst
from export.pipeline import apply_passes, export, save_graph, trace
from export.plans import make_plan
from export.session import CachedSession, Provider, Session, Sources
from model_core.attention import Explicit, Padded
from model_core.checkpoints.load import Loaded, load
from model_core.checkpoints.sources import locate
from model_core.tokenization import Tokenizer
from tests.support.checkpoints import write_tokenizer
from tests.support.families.case import Case

WRITERS = ("language_model", "seq2seq")


def main_head(case: Case) -> str | None:
    """The head that a case is exported with: the one that writes, else none."""
    return next((head for head in WRITERS if head in case.heads), None)


def save_checkpoint(case: Case, folder: Path, seed: int = 0) -> Path:
    """The reference's checkpoint with a tokenizer of letters."""
    case.reference(main_head(case), seed).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def export_case(
    case: Case,
    folder: Path,
    precision: Precision = Precision.FP32,
    seed: int = 0,
    name: str | None = None,
) -> tuple[Artifact, Loaded]:
    """What `anatomy export` makes of a case's checkpoint, and the model in PyTorch."""
    source = save_checkpoint(case, folder / "checkpoint", seed)
    made = export(
        recipe(str(source), precision, name=name),
        folder / "cache",
        lambda *_: None,
        folder / "artifact",
    )
    return Artifact.open(made), load_case(case, folder)


def load_case(case: Case, folder: Path) -> Loaded:
    """The model in PyTorch that was saved in `folder` to be exported."""
    head = main_head(case)
    located = locate(str(folder / "checkpoint"), cache=folder)
    return load(located, Explicit(), [head] if head else [])


class Exports:
    """What cases are exported to, each made once for all tests that only read it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Path] = {}

    def of(self, case: Case) -> tuple[Artifact, Loaded]:
        """The artifact of a case in float32, and a model in PyTorch of one's own."""
        if case.name not in self._made:
            folder = self._root / str(len(self._made))
            artifact, ours = export_case(case, folder)
            self._made[case.name] = artifact.folder
            return artifact, ours
        folder = self._made[case.name]
        return Artifact.open(folder), load_case(case, folder.parent)


class Rows:
    """The rows of an artifact's decoder, fed by hand."""

    def __init__(self, artifact: Artifact, rows: int = 3) -> None:
        manifest = artifact.manifest
        session = Session(artifact.graph, Provider.CPU, 1)
        assert isinstance(manifest.cache, CacheLayout)
        sources = None
        if manifest.cross is not None:
            encoder = Session(artifact.folder / "encoder.onnx", Provider.CPU, 1)
            sources = Sources(encoder, manifest.cross, rows, manifest.generation.max_source_tokens)
        capacity = min(64, manifest.max_tokens)
        self.decoder = CachedSession(session, manifest.cache, rows, capacity, sources)
        self.lengths = np.zeros(rows, np.int64)

    def read(self, row: int, source: Sequence[int]) -> None:
        """Let a row look at a source."""
        assert self.decoder.sources is not None
        count = len(source)
        assert self.decoder.sources.encode([[row]], {
            "input_ids": np.array(source, np.int64), "position_ids": np.arange(count),
            "padded_from_packed": np.arange(count)[None], "packed_from_padded": np.arange(count),
            "lengths": np.array([count]),
        }) == [True]  # fmt: skip

    def prefill(self, row: int, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [S, V] of each of some tokens that are added to a row."""
        found = self.decoder.step(
            slice(row, row + 1), np.array([list(token_ids)], np.int64),
            self.lengths[row : row + 1], np.arange(len(token_ids)),
        )  # fmt: skip
        self.lengths[row] += len(token_ids)
        return found

    def decode(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [B, V] after one more token in each of the first rows."""
        count = len(token_ids)
        found = self.decoder.step(
            slice(0, count), np.array(token_ids, np.int64)[:, None],
            self.lengths[:count], np.arange(count),
        )  # fmt: skip
        self.lengths[:count] += 1
        return found


def torch_logits(
    ours: Loaded, token_ids: Sequence[int], source: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Logits [S, V] in PyTorch, in one go."""
    (head,) = ours.model.heads.values()
    rows = torch.tensor([list(token_ids)])
    layout, memory = Padded.of(rows), None
    with torch.inference_mode():
        if source is not None:
            read = torch.tensor([list(source)])
            source_layout = Padded.of(read)
            memory = ours.model.transformer.encode(read, source_layout)
            layout = Padded.of(rows, memory=source_layout)
        return head(ours.model.transformer.decode(rows, layout, memory)[0]).numpy()


def receipts(case: Case, folder: Path, seed: int = 0) -> dict[Precision, Parity]:
    """How far the graphs of a case are from PyTorch, in float32 and in int8.

    In int8 every product is quantised that is so in a model of a real size, however narrow here.
    """
    found: dict[Precision, Parity] = {}
    source = save_checkpoint(case, folder / "checkpoint", seed)
    located = locate(str(source), cache=folder)
    head = main_head(case)
    for precision in (Precision.FP32, Precision.INT8):
        loaded = load(located, Explicit(), [head] if head else [])
        tokenizer = Tokenizer.from_files(located.files)
        wanted = recipe(str(source), precision)
        plan = make_plan(wanted, located, loaded, tokenizer, precision, minimum_columns=1)
        parts: list[Parity] = []
        for file, graph in plan.graphs.items():
            model = trace(graph.spec)
            apply_passes(model, graph.spec.module, plan.products)
            save_graph(model, folder, file)
            parts.append(compare(folder / file, graph.golden)[0])
        found[precision] = worst(parts)
    return found
