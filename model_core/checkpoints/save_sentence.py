"""What sentence-transformers needs beside a Transformer's weights to make vectors of texts."""

import json
from pathlib import Path
from typing import Any

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.save import write_json
from model_core.checkpoints.sentence_transformers import MODES, OWN_CLASSES
from model_core.sentence_config import SentenceConfig, UnitStep

POOLING_FOLDER = "1_Pooling"


def save_sentence_config(config: SentenceConfig, dim: int, folder: Path) -> None:
    """Write into a checkpoint's `folder` how hidden states of `dim` become vectors.

    `read_sentence_config` gives `config` again. Raises `CheckpointError` for layers with weights.
    """
    if any(not isinstance(step, UnitStep) for step in config.steps):
        raise CheckpointError("layers with weights after pooling can't be saved")
    steps = [(f"{number}_Normalize", "Normalize") for number in range(2, 2 + len(config.steps))]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{OWN_CLASSES}models.{kind}"}
        for place, (path, kind) in enumerate(
            [("", "Transformer"), (POOLING_FOLDER, "Pooling"), *steps]
        )
    ]
    text = json.dumps(modules, indent=2) + "\n"
    (folder / "modules.json").write_text(text, encoding="utf-8")
    names = {mode: name for name, mode in MODES.items()}
    modes = [names[mode] for mode in config.pooling]
    (folder / POOLING_FOLDER).mkdir()
    pooling: dict[str, Any] = {
        "word_embedding_dimension": dim,
        "pooling_mode": modes[0] if len(modes) == 1 else modes,
    }
    write_json(folder / POOLING_FOLDER / "config.json", pooling)
    limits = {"max_seq_length": config.max_tokens, "do_lower_case": config.lowercase}
    write_json(folder / "sentence_bert_config.json", limits)
    options = {
        "prompts": dict(config.prompts),
        "default_prompt_name": config.default_prompt,
        "similarity_fn_name": config.similarity,
    }
    write_json(folder / "config_sentence_transformers.json", options)
