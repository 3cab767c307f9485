"""Heads learn what can be learned, from vectors made here; the committed one is what it says."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from model_core.checkpoints.sources import Located
from model_core.commands import app
from model_core.heads import Classifier
from model_core.pooling import normalize
from model_core.training.classify import CARD_FILE, WEIGHTS_FILE, measure, write_head
from model_core.training.errors import TrainingError
from model_core.training.head import Embedder, Regression, Vectors, predict, train_head
from model_core.training.wordnet import LABELS

SUPERSENSE = Path(__file__).parents[3] / "export" / "heads" / "supersense"
CLASSES, DIM = 6, 32
GRID = (Regression(1e-3, 0.0), Regression(1e-3, 0.5))


def silent(done: int, total: int) -> None:
    del done, total


def clouds(rows: int, seed: int) -> Vectors:
    """Vectors of length 1 around a centre a class; class 0 is half of them."""
    centres = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-CLASSES + 1, CLASSES, (rows,), generator=generator).clamp(min=0)
    noise = torch.randn(rows, DIM, generator=generator)
    return Vectors(normalize(centres[labels] + 0.5 * noise), labels)


def test_a_head_beats_the_majority_class_by_far_on_vectors_that_can_be_told_apart():
    train, validation, test = clouds(600, 1), clouds(200, 2), clouds(200, 3)
    trained = train_head(train, validation, CLASSES, seed=0, on_progress=silent, grid=GRID)
    figures = measure(trained, train, test, CLASSES)
    assert figures.accuracy > 0.95
    assert figures.macro_f1 > 0.95
    assert figures.majority_accuracy < 0.7
    assert figures.majority_macro_f1 < 0.2
    assert figures.expected_calibration_error < 0.05


def test_labels_that_mean_nothing_teach_nothing():
    train, validation, test = clouds(600, 1), clouds(200, 2), clouds(2000, 3)
    shuffled = train.labels[torch.randperm(600, generator=torch.Generator().manual_seed(4))]
    trained = train_head(
        Vectors(train.values, shuffled), validation, CLASSES, seed=0, on_progress=silent, grid=GRID
    )
    figures = measure(trained, train, test, CLASSES)
    assert figures.accuracy < figures.majority_accuracy + 0.05


def test_the_same_seed_gives_the_same_head_and_another_nearly_the_same():
    train, validation = clouds(600, 1), clouds(200, 2)

    def logits(seed: int) -> Tensor:
        trained = train_head(train, validation, CLASSES, seed=seed, on_progress=silent, grid=GRID)
        return trained.head(validation.values)

    assert torch.equal(logits(0), logits(0))
    # One optimum: what is left is where the optimiser stops, of logits in the tens.
    torch.testing.assert_close(logits(0), logits(1), atol=0.5, rtol=0)


def test_balance_raises_the_recall_of_a_rare_class():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(1000) >= 950).long()
    values = torch.randn(1000, DIM, generator=generator) + 0.3 * labels[:, None]
    vectors = Vectors(values, labels)

    def found(balance: float) -> int:
        grid = (Regression(1e-2, balance),)
        trained = train_head(vectors, vectors, 2, seed=0, on_progress=silent, grid=grid)
        return int(predict(trained.head, values[950:]).sum())

    assert found(1.0) > found(0.0)


def test_one_class_or_no_validation_is_refused():
    vectors = clouds(50, 1)
    alike = Vectors(vectors.values, torch.zeros(50, dtype=torch.long))
    nothing = Vectors(vectors.values[:0], vectors.labels[:0])
    for train, validation in ((alike, vectors), (vectors, nothing)):
        with pytest.raises(TrainingError, match="two classes"):
            train_head(train, validation, CLASSES, seed=0, on_progress=silent, grid=GRID)


def test_vectors_that_are_not_finite_are_refused():
    vectors = clouds(50, 1)
    vectors.values[3, 4] = torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        train_head(vectors, vectors, CLASSES, seed=0, on_progress=silent, grid=GRID)


def test_a_written_head_is_read_back_and_nothing_else_stays(tmp_path: Path):
    head = Classifier(DIM, CLASSES)
    (tmp_path / "notes.txt").write_text("kept")
    write_head(tmp_path, head, {"labels": list("abcdef")})
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", WEIGHTS_FILE, CARD_FILE}
    state = load_file(tmp_path / WEIGHTS_FILE)
    assert set(state) == {"output.weight", "output.bias"}
    assert torch.equal(state["output.weight"], head.output.weight)


def test_an_embedding_is_the_same_alone_and_in_company(minilm_files: Mapping[str, Path]):
    embedder = Embedder.of(Located("minilm", minilm_files, "apache-2.0"))
    texts = ["a large wild cat", "move fast", "", "no longer published, " * 200, "move fast"]
    together = embedder.embed(texts, silent)
    alone = torch.cat([embedder.embed([text], silent) for text in texts])
    # Float32 sums in another order; components are near 0.05.
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(texts)))


def test_the_committed_head_has_wordnets_labels_and_beats_the_majority_class():
    card = json.loads((SUPERSENSE / CARD_FILE).read_text(encoding="utf-8"))
    assert card["labels"] == list(LABELS)
    assert len(LABELS) == 45
    head = Classifier(384, len(LABELS))
    head.load_state_dict(load_file(SUPERSENSE / WEIGHTS_FILE))
    figures = card["test"]
    assert figures["accuracy"] > 0.65 > 5 * figures["majority_accuracy"]
    assert figures["macro_f1"] > 0.5 > 20 * figures["majority_macro_f1"]
    assert figures["expected_calibration_error"] < 0.05


def test_the_committed_head_names_what_definitions_are_about(minilm_files: Mapping[str, Path]):
    embedder = Embedder.of(Located("minilm", minilm_files, "apache-2.0"))
    head = Classifier(384, len(LABELS))
    head.load_state_dict(load_file(SUPERSENSE / WEIGHTS_FILE))
    # Written for this test: none is a gloss of WordNet.
    expected = {
        "someone who repairs bicycles for a living": "noun.person",
        "a long-legged bird that wades in rivers and eats fish": "noun.animal",
        "walk slowly and without any hurry": "verb.motion",
        "a soup of beans, tomatoes and pasta": "noun.food",
        "a period of ten days": "noun.time",
    }
    answers = predict(head, embedder.embed(list(expected), silent))
    assert [LABELS[number] for number in answers] == list(expected.values())


def run_classify(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["classify", "--model", "nowhere", *arguments])
    return result.exit_code, " ".join(result.stderr.split())  # as one line, however wide


def test_the_command_says_what_is_missing(tmp_path: Path):
    head = ("--head-only", "--output", str(tmp_path / "head"))
    code, said = run_classify(*head, "--data", f"wordnet:{tmp_path}")
    assert code == 1
    assert "make setup-tools" in said
    code, said = run_classify("--output", str(tmp_path / "head"), "--data", "wordnet:x")
    assert code == 1
    assert "wordnet:x doesn't exist" in said
    for more in (("--epochs", "3"), ("--resume",), ("--label-column", "x")):
        code, said = run_classify(*head, "--data", "wordnet:x", *more)
        assert code == 2
        assert "--head-only takes" in said
    assert not (tmp_path / "head").exists()


def test_a_file_as_output_is_refused_before_the_work(tmp_path: Path):
    (tmp_path / "head").write_text("")
    output = ("--output", str(tmp_path / "head"))
    code, said = run_classify("--head-only", *output, "--data", "wordnet:x")
    assert code == 1
    assert "is a file" in said
