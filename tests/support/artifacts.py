"""An encoder-decoder's artifact over graphs that are written by hand; it loads in milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np

from export.artifact import (
    ENCODER_GRAPH,
    FORMAT_VERSION,
    GRAPH,
    Arrays,
    GenerationDefaults,
    Kind,
    Manifest,
    Parity,
    Precision,
    ServedOutput,
    digests,
    write_golden,
    write_manifest,
)
from export.session import Provider, Session
from model_core.tokenization import Tokenizer
from service.engines.pooling import pack
from tests.support.checkpoints import VOCAB, write_tokenizer
from tests.support.graphs import CACHE, CROSS, save_decoder, save_encoder

OWN = GenerationDefaults(
    decoder_start=(1,), forced_first=40, suppressed=(2, 3), beams=4, max_source_tokens=24
)


def golden(folder: Path) -> dict[str, tuple[Arrays, Arrays]]:
    source: Arrays = dict(pack([[4, 5, 6], [7]], token_types=False))
    (*cross,) = Session(folder / ENCODER_GRAPH, Provider.CPU, 1).run(source, CROSS.names)
    feeds: Arrays = {
        "input_ids": np.array([[1], [2]]), "lengths": np.array([0, 0]),
        "logit_index": np.array([0, 1]), "source_lengths": source["lengths"],
        **{name: np.zeros((2, 1, 4, CACHE.head_dim), np.float32) for name in CACHE.names},
        **dict(zip(CROSS.names, cross, strict=True)),
    }  # fmt: skip
    (logits,) = Session(folder / GRAPH, Provider.CPU, 1).run(feeds, ["logits"])
    return {
        ENCODER_GRAPH: (source, dict(zip(CROSS.names, cross, strict=True))),
        GRAPH: (feeds, {"logits": logits}),
    }


def write_artifact(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    folder.mkdir()
    save_encoder(folder / ENCODER_GRAPH)
    save_decoder(folder / GRAPH)
    write_tokenizer(folder)
    Tokenizer.from_files({"tokenizer.json": folder / "tokenizer.json"}).save(folder)
    write_golden(folder, changes.pop("golden", None) or golden(folder))
    values = {
        "format_version": FORMAT_VERSION, "name": name, "kind": Kind.ENCODER_DECODER,
        "family": "none", "config": {}, "precision": Precision.FP32, "inputs": (), "outputs": (),
        "served": (ServedOutput(name=name, output="logits"),), "vocab_size": VOCAB,
        "max_tokens": 16, "cache": CACHE, "cross": CROSS, "generation": OWN, "source": "a test",
        "licence": "none", "created": 0, "tools": {}, "files": digests(folder),
        "parity": Parity(largest_error=0.0, smallest_cosine=1.0, processor="any"),
    }  # fmt: skip
    write_manifest(folder, Manifest.model_validate(values | changes))
    return folder
