"""Answers to many sources are those to each alone, and are held against all targets of a source."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.attention import Padded
from model_core.reference_decoding import Rules, beam_search
from model_core.training.answers import Decoding, questions_of, write_answers
from model_core.training.errors import TrainingError
from model_core.training.execution import measure_result
from model_core.training.recipes.seq2seq import HEAD, RECIPE, Seq2SeqTask
from model_core.training.run_files import read_run
from model_core.training.run_folder import BEST, RunFolder
from tests.support.training import go, seq2seq_settings, with_settings, write_pairs, write_rows

STEPS = 8


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Seq2SeqTask:
    """A model that has learned a little: its answers differ in length, and from beam to beam."""
    folder = tmp_path_factory.mktemp("answers")
    pairs = write_pairs(folder / "pairs.jsonl", 200)
    task = go("seq2seq", seq2seq_settings(pairs, steps=60), folder / "run").prepared.task
    assert isinstance(task, Seq2SeqTask)
    task.model.eval()
    return task


@torch.no_grad()
def written_alone(task: Seq2SeqTask, source: list[int], decoding: Decoding) -> list[int]:
    """By the plain search, every token of which runs the model anew."""
    transformer = task.begun.model.transformer
    ids = torch.tensor([source])
    layout = Padded.of(ids)
    memory = transformer.encode(ids, layout)

    def next_logits(token_ids: Any) -> torch.Tensor:
        row = torch.tensor([list(token_ids)])
        hidden = transformer.decode(row, Padded.of(row, memory=layout), memory)
        return task.model.heads[HEAD](hidden)[0, -1]

    found = beam_search(
        next_logits, decoding.start, decoding.steps, decoding.beams, decoding.rules,
        length_penalty=decoding.length_penalty, early_stopping=decoding.early_stopping,
    )  # fmt: skip
    return found[:-1] if found[-1] in decoding.rules.ends else found


def test_answers_written_together_are_those_of_the_plain_search(task: Seq2SeqTask):
    end = task.ends.end
    found: set[tuple[tuple[int, ...], ...]] = set()
    sources = [list(pair.source) for pair in task.validation[:12]]
    assert len({len(source) for source in sources}) > 1
    for beams, penalty, forced in ((1, 1.0, None), (2, 0.4, None), (4, 2.0, 7)):
        rules = Rules((end,), forced_first=forced, suppressed=(task.ends.pad,))
        decoding = Decoding(task.ends.start, STEPS, beams, rules, penalty, beams == 2)
        together = write_answers(task.model, HEAD, sources, decoding, task.ends.pad)
        assert together == [written_alone(task, source, decoding) for source in sources]
        found.add(tuple(map(tuple, together)))
    assert len(found) == 3, "the settings make no difference"


def test_a_source_is_asked_once_with_all_its_targets():
    texts, targets = ["read", "lead", "read"], ["R IY1 D", "L EH1 D", "R EH1 D"]
    ids = [[1], [2], [1]]
    both = questions_of(texts, ids, targets, None)
    assert [(each.text, each.targets) for each in both] == [
        ("read", ["R IY1 D", "R EH1 D"]), ("lead", ["L EH1 D"]),
    ]  # fmt: skip
    (one,) = questions_of(texts, ids, targets, 1)
    assert questions_of(texts[::-1], ids[::-1], targets[::-1], 1)[0].text == one.text


def test_a_result_is_measured_again_with_other_beams_and_on_other_data(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl", 200)
    outcome = go("seq2seq", seq2seq_settings(pairs, steps=60), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.folder.rglob("*")}

    def measured(**overrides: Any):
        keys = {name.replace("__", "."): value for name, value in overrides.items()}
        run = read_run(RECIPE.run, folder.run_file, keys)
        return measure_result(RECIPE, run, folder.folder, tmp_path / "cache", lambda what: None)

    # Parameters went through a file of float32 and back: the same sums.
    assert measured().figures == outcome.figures
    greedy = measured(evaluation__beams=1, evaluation__sources=5)
    assert greedy.prepared.facts["sources answered"] == "5, with 1 beams"
    hopeless = write_rows(tmp_path / "other.jsonl", [{"source": "ab", "target": "H1 H1 H1"}] * 3)
    other = measured(data__validation=str(hopeless))
    assert other.prepared.facts["sources answered"] == "1, with 4 beams"
    assert other.figures["answer_error_rate"] == 1.0
    assert {path: path.stat().st_mtime_ns for path in folder.folder.rglob("*")} == before
    write_pairs(pairs, 201)
    with pytest.raises(TrainingError, match=r"not what it was when the run read it.*--validation"):
        measured()


def test_a_run_that_has_no_result_can_not_be_measured(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs.jsonl", 200)
    settings = with_settings(seq2seq_settings(pairs, steps=2), evaluation={"sources": 1})
    go("seq2seq", settings, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    (folder.folder / BEST).unlink()
    run = read_run(RECIPE.run, folder.run_file, {})
    with pytest.raises(TrainingError, match="has no best checkpoint yet"):
        measure_result(RECIPE, run, folder.folder, tmp_path / "cache", lambda what: None)
