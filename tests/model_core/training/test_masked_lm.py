"""Hidden tokens: which are, what stands in their place, and that a model learns to tell them."""

from pathlib import Path

import pytest
import torch

from model_core.training.errors import TrainingError
from model_core.training.recipes.masked_lm import NOT_ASKED, Masking, continuing
from tests.support.training import go, masked_settings, with_settings, write_sentences

MASK, VOCAB = 4, 100


def masking(share: float = 0.15, continues: torch.Tensor | None = None) -> Masking:
    none = torch.zeros(VOCAB, dtype=torch.bool)
    special = torch.arange(VOCAB) < 5
    return Masking(share, MASK, special, none if continues is None else continues)


def drawn(rows: int = 400, width: int = 100, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, width), generator=torch.Generator().manual_seed(seed))


def test_fifteen_in_a_hundred_are_asked_for_of_which_eighty_are_hidden():
    ids = drawn()
    read, asked = masking().hide(ids, torch.Generator().manual_seed(1))
    is_asked = asked != NOT_ASKED
    ordinary = ids >= 5
    assert (asked[is_asked] == ids[is_asked]).all()
    assert not (is_asked & ~ordinary).any()
    assert is_asked[ordinary].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (read[is_asked] == MASK).float().mean().item() == pytest.approx(0.8, abs=0.02)
    # Of the tenth that is drawn anew, one in a hundred is drawn as it was.
    assert (read == ids)[is_asked].float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (read == ids)[~is_asked].all()


def test_the_same_number_hides_the_same_tokens():
    ids = drawn(4)
    first, again, other = (
        masking().hide(ids, torch.Generator().manual_seed(seed))[1] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_words_are_hidden_whole():
    continues = torch.arange(VOCAB) % 2 == 1
    ids = drawn(seed=3).clamp(min=5)
    _, asked = masking(0.3, continues).hide(ids, torch.Generator().manual_seed(1))
    is_asked = asked != NOT_ASKED
    goes_on = continues[ids][:, 1:]
    assert (is_asked[:, 1:] == is_asked[:, :-1])[goes_on].all()
    assert not (is_asked[:, 1:] == is_asked[:, :-1])[~goes_on].all()
    assert is_asked.float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_pieces_that_go_on_with_a_word_are_told_by_the_vocabularys_own_marks():
    assert continuing(["play", "##ing", "the"]) == [False, True, False]
    assert continuing([" play", "ing", " the"]) == [False, True, False]


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_model_from_scratch_tells_hidden_tokens_better_than_their_frequency(
    tmp_path: Path, whole_words: bool
):
    texts = write_sentences(tmp_path / "texts.jsonl")
    settings = with_settings(masked_settings(texts), whole_words=whole_words)
    outcome = go("masked_lm", settings, tmp_path / "run")
    assert outcome.figures["loss"] < 0.6 * outcome.prepared.baseline["loss"]
    assert outcome.figures["accuracy"] > 0.4


def test_a_vocabulary_without_a_mask_is_refused(tmp_path: Path):
    texts = write_sentences(tmp_path / "texts.jsonl")
    go("masked_lm", masked_settings(texts, steps=1), tmp_path / "first")
    config = tmp_path / "first" / "best" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("mask_token", "other_token"))
    settings = masked_settings(texts)
    settings["model"] = {"source": str(tmp_path / "first" / "best")}
    with pytest.raises(TrainingError, match="no mask token"):
        go("masked_lm", settings, tmp_path / "second")
