"""An artifact of each kind of model with its inspection graph, made of tiny checkpoints."""

from pathlib import Path
from typing import Any

from transformers import BertForSequenceClassification, BertModel, LlamaForCausalLM

from export.artifact import Artifact, Precision
from export.catalogue import recipe
from export.inspection.pipeline import export_inspection
from export.pipeline import export
from tests.support.checkpoints import (
    draw_widely,
    tiny_bert_config,
    tiny_llama_config,
    write_tokenizer,
)
from tests.support.families import CASES
from tests.support.families.exported import export_case
from tests.support.reports import silent

LABELS = ("noun", "verb", "adverb")


def exported(model: Any, folder: Path, cache: Path) -> Path:
    draw_widely(model).save_pretrained(folder)
    write_tokenizer(folder)
    return export(recipe(str(folder), Precision.FP32), cache, silent)


def inspected(root: Path) -> tuple[Path, list[Path]]:
    """The cache, and an artifact of each kind of model, their inspection graphs in the cache."""
    cache = root / "cache"
    classes = dict(enumerate(LABELS))
    shape = {"max_position_embeddings": 512}
    found = [
        exported(BertModel(tiny_bert_config(**shape)), root / "embedder", cache),
        exported(
            BertForSequenceClassification(tiny_bert_config(id2label=classes, **shape)),
            root / "classifier", cache,
        ),
        exported(LlamaForCausalLM(tiny_llama_config()), root / "writer", cache),
    ]  # fmt: skip
    translator = next(case for case in CASES if case.family == "t5")
    found.append(export_case(translator, root / "t5", name="translator")[0].folder)
    for folder in found:
        export_inspection(Artifact.open(folder), cache, silent)
    return cache, found
