"""The inspection graph shows what PyTorch sees, and gives what the served graph gives."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from export.artifact import (
    GRAPH,
    LENS_GRAPH,
    Arrays,
    Artifact,
    Inspection,
    Kind,
    Precision,
    digests,
    read_manifest,
    write_manifest,
)
from export.catalogue import find_inspection, inspection_folder, recipe
from export.inspection.graphs import named_stacks, parts_of
from export.inspection.pipeline import export_inspection
from export.parity import ParityError, padded
from export.pipeline import export
from export.session import Provider, Session, reproduces_golden
from model_core.attention import Padded
from model_core.checkpoints.load import Loaded
from model_core.inspection import Inspector
from service.engines.pooling import pack
from tests.support.checkpoints import draw_widely, tiny_llama_config, write_tokenizer
from tests.support.families import CASES
from tests.support.families.exported import Exports, Rows, save_checkpoint
from tests.support.reports import silent

TEXTS = [[5, 40, 7, 9, 21, 33, 8, 12, 50], [11], [6, 30, 31, 9]]
TARGET = [20, 7, 7, 40, 55]
# Float32 through other kernels, relative to each output's scale.
TOLERANCE = 1e-4
# One for each thing that an attention may have: token types, a bias of what q and k hold, local
# layers, caps and groups, norms within heads, a bias of buckets with cross-attention, plain
# cross-attention.
FAMILIES = ("bert", "deberta-v2", "modernbert", "gemma2", "qwen3", "t5", "bart")


@pytest.fixture(scope="module", params=FAMILIES)
def made(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    family_exports: Exports,
) -> tuple[Artifact, Artifact, Loaded]:
    """What is served, its inspection graph, and the model in PyTorch."""
    folder = tmp_path_factory.mktemp(request.param)
    case = next(case for case in CASES if case.family == request.param)
    served, ours = family_exports.of(case)
    assert find_inspection(served, folder) is None
    found = export_inspection(served, folder, silent)
    assert find_inspection(served, folder) == found
    return served, Artifact.open(found), ours


def inspection_of(artifact: Artifact) -> Inspection:
    assert artifact.manifest.inspection is not None
    return artifact.manifest.inspection


def feeds_of(artifact: Artifact, texts: list[list[int]]) -> Arrays:
    rows, mask = padded(texts)
    feeds: Arrays = {"input_ids": rows.numpy(), "lengths": mask.sum(1).numpy()}
    if "token_type_ids" in artifact.manifest.inputs:
        feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    if "target_ids" in artifact.manifest.inputs:
        feeds["target_ids"] = np.array([TARGET] * len(texts))
    return feeds


def run(artifact: Artifact, feeds: Arrays) -> Arrays:
    names = artifact.manifest.outputs
    session = Session(artifact.graph, Provider.CPU, 1)
    return dict(zip(names, session.run(feeds, names), strict=True))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@torch.inference_mode()
def test_it_shows_what_pytorch_sees_in_a_batch_of_several_lengths(
    made: tuple[Artifact, Artifact, Loaded],
) -> None:
    _, artifact, ours = made
    found = run(artifact, feeds_of(artifact, TEXTS))
    transformer = ours.model.transformer
    inspector = Inspector(transformer)
    rows, mask = padded(TEXTS)
    layout = Padded.of(rows, mask)
    (name, stack), *others = named_stacks(transformer)
    seen = {name: inspector.trace(stack, rows, layout)}
    if others:
        targets = torch.tensor([TARGET] * len(TEXTS))
        memory, target_layout = seen[name].output, Padded.of(targets, memory=layout)
        seen["decoder"] = inspector.trace(others[0][1], targets, target_layout, memory=memory)
    sites = {site.name: site for site in inspection_of(artifact).sites}
    assert list(sites) == [a.site.name for trace in seen.values() for a in trace.attended]
    for name, trace in seen.items():
        for attended in trace.attended:
            parts = parts_of(attended)
            assert ("bias" in parts) == sites[attended.site.name].bias
            for part, expected in parts.items():
                assert_close(found[f"{attended.site.name}.{part}"], expected.numpy())
        norms = torch.stack(trace.residual_norms)
        assert_close(found[f"{name}.residual_norms"], norms.numpy())


def test_a_text_alone_is_seen_as_in_a_batch(made: tuple[Artifact, Artifact, Loaded]) -> None:
    _, artifact, _ = made
    together = run(artifact, feeds_of(artifact, TEXTS))
    alone = run(artifact, feeds_of(artifact, [TEXTS[1]]))
    site = inspection_of(artifact).sites[0].name
    assert_close(alone[f"{site}.q"][0], together[f"{site}.q"][1, :, :1])
    assert alone[f"{site}.pattern"].min() == 1.0, "a token alone looks at itself"


def test_its_outputs_are_those_of_the_served_graph(
    made: tuple[Artifact, Artifact, Loaded],
) -> None:
    served, artifact, _ = made
    if served.manifest.kind is Kind.ENCODER:
        names = served.manifest.outputs
        types = "token_type_ids" in served.manifest.inputs
        session = Session(served.graph, Provider.CPU, 1)
        expected = dict(zip(names, session.run(pack(TEXTS, token_types=types), names), strict=True))
        found = run(artifact, feeds_of(artifact, TEXTS))
        _, real = padded(TEXTS)
        assert_close(found["sentence_embedding"], expected["sentence_embedding"])
        tokens = found["token_embeddings"][real.flatten().numpy()]
        assert_close(tokens, expected["token_embeddings"])
        return
    rows, prompt = Rows(served), TEXTS[0]
    if served.manifest.cross is not None:
        rows.read(0, TEXTS[0])
        prompt = TARGET
    feeds = feeds_of(artifact, [TEXTS[0]])
    states = run(artifact, feeds)[f"{inspection_of(artifact).lens}.states"][-1, 0]
    lens = Session(artifact.folder / LENS_GRAPH, Provider.CPU, 1)
    (logits,) = lens.run({"states": states}, ["logits"])
    assert_close(logits, rows.prefill(0, prompt))


def test_it_has_a_receipt_and_reproduces_its_golden_outputs(
    made: tuple[Artifact, Artifact, Loaded],
) -> None:
    served, artifact, _ = made
    manifest, inspection = artifact.manifest, inspection_of(artifact)
    assert manifest.kind is Kind.INSPECTION
    assert manifest.parity.largest_error <= TOLERANCE
    assert inspection.distance.largest_error <= TOLERANCE, "of float32 from float32"
    graphs = [GRAPH] if inspection.lens is None else [GRAPH, LENS_GRAPH]
    for graph in graphs:
        session = Session(artifact.folder / graph, Provider.CPU, 1)
        assert reproduces_golden(artifact, session, graph, tolerance=1e-5) <= 1e-5
    assert served.manifest.precision is inspection.precision


def changed(served: Artifact, folder: Path, **changes: Any) -> Artifact:
    """A copy of an artifact whose manifest says something else."""
    shutil.copytree(served.folder, folder)
    manifest = read_manifest(folder).model_copy(update=changes)
    write_manifest(folder, manifest.model_copy(update={"files": digests(folder)}))
    return Artifact.open(folder)


def test_a_checkpoint_that_has_changed_since_is_refused(
    tmp_path: Path, family_exports: Exports
) -> None:
    case = next(case for case in CASES if case.family == "bert")
    checkpoint = str(save_checkpoint(case, tmp_path / "checkpoint", seed=1))
    served = changed(family_exports.of(case)[0], tmp_path / "served", source=checkpoint)
    with pytest.raises(ParityError, match=r"is no longer what .* was made of"):
        export_inspection(served, tmp_path, silent)
    assert find_inspection(served, tmp_path) is None
    assert not list((tmp_path / "artifacts").iterdir()), "nothing is left behind"


def test_the_distance_from_int8_is_told(tmp_path: Path) -> None:
    model = LlamaForCausalLM(tiny_llama_config(hidden_size=64))
    draw_widely(model).save_pretrained(tmp_path / "llama")
    write_tokenizer(tmp_path / "llama")
    wanted = recipe(str(tmp_path / "llama"), Precision.INT8)
    served = Artifact.open(export(wanted, tmp_path, silent))
    inspection = inspection_of(Artifact.open(export_inspection(served, tmp_path, silent)))
    assert inspection.precision is Precision.INT8
    # Some products of so small a model stay exact; what is left is what the served one's own
    # receipt says of it.
    told, receipt = inspection.distance, served.manifest.parity
    assert told.largest_error == pytest.approx(receipt.largest_error, rel=0.05, abs=1e-5)


def test_another_manifest_means_another_inspection(tmp_path: Path, family_exports: Exports) -> None:
    served, _ = family_exports.of(next(case for case in CASES if case.family == "bert"))
    inspection_folder(served, tmp_path).mkdir(parents=True)
    write_manifest(inspection_folder(served, tmp_path), read_manifest(served.folder))
    assert find_inspection(served, tmp_path) is not None
    later = changed(served, tmp_path / "later", created=1)
    assert find_inspection(later, tmp_path) is None
