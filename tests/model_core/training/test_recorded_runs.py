"""The runs of docs/runs, small: each has to beat something simple on what it has not seen.

The files' own settings, but for the size of the model, the data and how long it is trained: seconds
instead of minutes. What is compared with could not be beaten by weights that don't learn.
"""

import random
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from model_core.training.corpora.corpus import some_of, write_corpus
from model_core.training.corpora.messages import messages
from model_core.training.corpora.words import glosses
from model_core.training.report import Outcome
from tests.model_core.training.corpora.test_corpora import write_catalogue
from tests.support.training import TINY_BERT, TINY_LLAMA, carry_out_file, write_matches, write_rows

RUNS = Path(__file__).parents[3] / "docs" / "runs"
DOCS = RUNS.parent
WORDNET = Path("/usr/share/wordnet")
SMALL_ORIGINAL = {
    "model_type": "transformer", "d_model": 48, "nhead": 4, "num_encoder_layers": 2,
    "num_decoder_layers": 1, "dim_feedforward": 96, "norm_first": True, "final_norm": True,
    "max_position_embeddings": 48,
}  # fmt: skip


def run_file(name: str, output: Path, **changes: Any) -> Outcome:
    """Carry out a file of docs/runs with `changes` by key, two underscores for the dots."""
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return carry_out_file(RUNS / f"{name}.yaml", overrides, output)


def pronounce(word: str) -> str:
    """Phonemes by a rule that looks at what comes next: c and g are soft before e and i."""
    soft = {"c": ("S", "K"), "g": ("JH", "G")}
    vowels = {"a": "AE", "e": "EH", "i": "IH", "o": "AA"}
    said, stress = [], 1
    for letter, after in zip(word, word[1:] + " ", strict=True):
        if letter in vowels:
            said.append(f"{vowels[letter]}{stress}")
            stress = 0
        else:
            said.append(soft[letter][after not in "ei"] if letter in soft else letter.upper())
    return " ".join(said)


def test_g2p_learns_spelling_that_depends_on_what_comes_next(tmp_path: Path):
    draw = random.Random(0)
    words = {"".join(draw.choices("bcdgkmaeio", k=draw.randint(3, 6))) for _ in range(900)}
    lines = [f"{word} {pronounce(word)}" for word in sorted(words)]
    (tmp_path / "rule.dict").write_text("\n".join(lines) + "\n")
    outcome = run_file(
        "g2p", tmp_path / "run", data__train=str(tmp_path / "rule.dict"),
        data__validation_share=0.1, model__architecture=SMALL_ORIGINAL, training__steps=200,
        training__batch_size=32, training__evaluate_every=200, schedule__warmup_steps=30,
        optimizer__learning_rate=5e-3,
    )  # fmt: skip
    rates = {name: figure for name, figure in outcome.figures.items() if name.endswith("rate")}
    # Spelling isn't phonemes, so that the source, copied, is wrong throughout.
    assert outcome.prepared.baseline["answer_error_rate"] == 1.0
    assert rates["unit_error_rate"] < 0.5, rates
    assert rates["answer_error_rate"] < 0.5, rates


def test_tiny_lm_says_more_of_our_pages_than_the_frequency_of_tokens(tmp_path: Path):
    outcome = run_file(
        "tiny-lm", tmp_path / "run", data__train=str(DOCS), data__validation=None,
        data__max_tokens=64, model__architecture={**TINY_LLAMA, "hidden_size": 64},
        tokenizer__vocab_size=512, optimizer__learning_rate=1e-2, training__steps=120,
        training__evaluate_every=120, schedule__warmup_steps=10,
    )  # fmt: skip
    figures, baseline = outcome.figures, outcome.prepared.baseline
    assert figures["bits_per_byte"] < 0.9 * baseline["bits_per_byte"]


def test_translation_puts_words_together_that_it_has_not_seen_together(tmp_path: Path):
    verbs = {
        "Open": "Ouvrir", "Delete": "Supprimer", "Save": "Enregistrer", "Show": "Afficher",
        "Add": "Ajouter", "Copy": "Copier", "Rename": "Renommer", "Move": "Déplacer",
    }  # fmt: skip
    things = {
        "file": "le fichier", "page": "la page", "user": "l’utilisateur", "group": "le groupe",
        "image": "l’image", "form": "le formulaire", "comment": "le commentaire",
    }  # fmt: skip
    endings = {"": "", " now": " maintenant", "…": "…", " again": " encore"}
    pairs = {
        f"{verb} the {thing}{ending}": f"{verbs[verb]} {things[thing]}{endings[ending]}"
        for verb, thing, ending in product(verbs, things, endings)
    }
    write_catalogue(tmp_path / "fr" / "LC_MESSAGES" / "app.mo", pairs)
    write_corpus(messages([tmp_path], "fr"), tmp_path / "messages")
    outcome = run_file(
        "translation", tmp_path / "run", data__train=str(tmp_path / "messages/train.jsonl"),
        data__validation=str(tmp_path / "messages/validation.jsonl"), data__max_tokens=32,
        tokenizer__vocab_size=400, model__architecture=SMALL_ORIGINAL, training__epochs=None,
        training__steps=150, training__batch_size=32, training__evaluate_every=150,
        schedule__warmup_steps=30, optimizer__learning_rate=5e-3,
    )  # fmt: skip
    figures, baseline = outcome.figures, outcome.prepared.baseline
    assert figures["unit_error_rate"] < 0.3 < 0.8 < baseline["unit_error_rate"]
    if "chrf" in baseline:
        assert figures["chrf"] > 75 > 50 > baseline["chrf"]


@pytest.mark.skipif(not WORDNET.is_dir(), reason="Debian's wordnet-base is not installed")
def test_supersense_tells_definitions_apart_from_scratch(tmp_path: Path):
    labels = ("noun.animal", "noun.plant", "noun.person", "noun.location")
    corpus = glosses(WORDNET, limit=2000)
    some = {
        name: some_of((row for row in rows if row["label"] in labels), "text", 1500)
        for name, rows in corpus.parts.items()
    }
    files = {name: write_rows(tmp_path / f"{name}.jsonl", rows) for name, rows in some.items()}
    outcome = run_file(
        "supersense", tmp_path / "run", data__train=str(files["train"]),
        data__validation=str(files["validation"]), data__max_tokens=24, model__source=None,
        model__architecture=TINY_BERT, tokenizer__vocab_size=1000, training__steps=150,
        training__evaluate_every=150, optimizer__learning_rate=3e-3, schedule__warmup_steps=20,
    )  # fmt: skip
    counts = Counter(row["label"] for row in some["validation"])
    majority = max(counts.values()) / sum(counts.values())
    assert outcome.prepared.baseline["accuracy"] <= majority
    assert outcome.figures["accuracy"] > majority + 0.15
    assert outcome.figures["macro_f1"] > 2 * outcome.prepared.baseline["macro_f1"]


def test_definitions_find_their_words_after_training(tmp_path: Path):
    data = write_matches(tmp_path / "matches.jsonl")
    outcome = run_file(
        "definitions", tmp_path / "run", data__train=str(data), data__validation=None,
        data__validation_share=0.2, data__max_tokens=16, model__source=None,
        model__architecture=TINY_BERT, tokenizer__vocab_size=200, tokenizer__min_frequency=1,
        training__steps=100, training__batch_size=32, training__evaluate_every=100,
        optimizer__learning_rate=3e-3, schedule__warmup_steps=10,
    )  # fmt: skip
    before, after = outcome.prepared.baseline["recall_at_10"], outcome.figures["recall_at_10"]
    assert after > 0.9 > before + 0.3
