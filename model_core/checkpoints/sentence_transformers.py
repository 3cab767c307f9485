"""What sentence-transformers' `modules.json` says of a checkpoint: pooling, norm, length."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import read_json
from model_core.checkpoints.sources import Located
from model_core.heads import PoolingMode

MODES: Mapping[str, PoolingMode] = {
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_max_tokens": PoolingMode.MAX,
}


@dataclass(frozen=True, slots=True)
class SentencePooling:
    """How hidden states become one vector. `max_tokens` None: as many as there are positions."""

    mode: PoolingMode = PoolingMode.MEAN
    normalize: bool = True
    max_tokens: int | None = None


def read_pooling(located: Located) -> SentencePooling | None:
    """The pooling of a sentence-transformers checkpoint, None where there is no `modules.json`.

    Raises `CheckpointError` for modules or pooling modes that are not supported, by name.
    """
    if "modules.json" not in located.files:
        return None
    mode, normalize, max_tokens = PoolingMode.MEAN, False, None
    for module in read_modules(located):
        kind = module["type"].rpartition(".")[2]
        folder = module.get("path", "")
        if kind == "Transformer":
            settings = f"{folder}/sentence_bert_config.json".lstrip("/")
            if settings in located.files:
                max_tokens = read_json(located.files[settings]).get("max_seq_length")
        elif kind == "Pooling":
            mode = read_mode(located, f"{folder}/config.json")
        elif kind == "Normalize":
            normalize = True
        else:
            raise CheckpointError(f"modules.json: module type {module['type']!r} is not supported")
    return SentencePooling(mode, normalize, max_tokens)


def read_modules(located: Located) -> list[dict[str, str]]:
    """The list in `modules.json`."""
    try:
        return json.loads(located.files["modules.json"].read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"modules.json is not valid JSON: {error}") from error


def read_mode(located: Located, name: str) -> PoolingMode:
    """The one pooling mode that a Pooling module's config switches on."""
    if name not in located.files:
        raise CheckpointError(f"modules.json names {name}, which is missing")
    config = read_json(located.files[name])
    active = [
        key for key, value in config.items() if key.startswith("pooling_mode") and value is True
    ]
    if len(active) != 1 or active[0] not in MODES:
        accepted = ", ".join(MODES)
        raise CheckpointError(
            f"{name}: pooling modes {active}, expected exactly one of: {accepted}"
        )
    return MODES[active[0]]
