"""What `modules.json` says of pooling is read, and what it can't say here is refused by name."""

import json
from pathlib import Path

import pytest

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.sentence_transformers import SentencePooling, read_pooling
from model_core.checkpoints.sources import Located
from model_core.heads import PoolingMode

TRANSFORMER = {"type": "sentence_transformers.models.Transformer", "path": ""}
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}


def checkpoint(folder: Path, modules: list[dict[str, str]], **pooling: bool) -> Located:
    texts = {
        "modules.json": json.dumps(modules),
        "1_Pooling/config.json": json.dumps({"word_embedding_dimension": 8, **pooling}),
        "sentence_bert_config.json": json.dumps({"max_seq_length": 77}),
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return Located("a folder", {name: folder / name for name in texts}, "unknown")


@pytest.mark.parametrize(
    ("switch", "mode"),
    [
        ("pooling_mode_mean_tokens", PoolingMode.MEAN),
        ("pooling_mode_cls_token", PoolingMode.CLS),
        ("pooling_mode_max_tokens", PoolingMode.MAX),
    ],
)
def test_the_mode_that_is_switched_on_is_read(
    tmp_path: Path, switch: str, mode: PoolingMode
) -> None:
    located = checkpoint(tmp_path, [TRANSFORMER, POOLING, NORMALIZE], **{switch: True})
    assert read_pooling(located) == SentencePooling(mode, normalize=True, max_tokens=77)


def test_without_a_normalize_module_nothing_is_normalised(tmp_path: Path) -> None:
    located = checkpoint(tmp_path, [TRANSFORMER, POOLING], pooling_mode_mean_tokens=True)
    found = read_pooling(located)
    assert found is not None
    assert not found.normalize


def test_a_checkpoint_without_modules_says_nothing() -> None:
    assert read_pooling(Located("a folder", {}, "unknown")) is None


def test_an_unknown_module_is_refused_by_name(tmp_path: Path) -> None:
    dense = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    located = checkpoint(tmp_path, [TRANSFORMER, POOLING, dense], pooling_mode_mean_tokens=True)
    with pytest.raises(CheckpointError, match="Dense"):
        read_pooling(located)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
    ],
)
def test_anything_but_one_known_mode_is_refused(tmp_path: Path, switches: dict[str, bool]) -> None:
    located = checkpoint(tmp_path, [TRANSFORMER, POOLING], **switches)
    with pytest.raises(CheckpointError, match="exactly one of"):
        read_pooling(located)
