"""Tiny vocabularies in the layouts of the families, trained on a few lines in a moment."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

LINES = (
    "hello world, the quick brown fox jumps over the lazy dog",
    "time flies like an arrow; fruit flies like a banana",
    "def encode(self, text): return [self.ids[token] for token in text.split()]",
    "Ärger über Öl: die Straße ist größer, c'est une école naïve",
    "日本語のテキスト、東京と京都。カタカナ 你好世界 北京",
    "Привет мир, как дела",
    "naïve café 3.14159 1,000,000 2024",
    'emoji 🙂🙃 ✨ <mark> [brackets] (parentheses) "quotes" - dash.',
)
TARGET_LINES = (
    "hallo Welt, der schnelle braune Fuchs springt über den faulen Hund",
    "die Zeit fliegt wie ein Pfeil; Fruchtfliegen mögen eine Banane",
)
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Layout:
    """What a family's folder holds besides the files that `make` writes."""

    tokenizer_class: str
    make: Callable[[Path], None]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model_type: str = "bert"

    def write(self, folder: Path) -> dict[str, Path]:
        """Make the files in `folder`, which is made too; their paths by name."""
        folder.mkdir(parents=True)
        self.make(folder)
        texts = {
            "tokenizer_config.json": {"tokenizer_class": self.tokenizer_class, **self.config},
            "config.json": {"model_type": self.model_type},
        }
        for name, content in texts.items():
            (folder / name).write_text(json.dumps(content))
        return {path.name: path for path in folder.iterdir()}


def pieces(name: str, **options: Any) -> Callable[[Path], None]:
    """A SentencePiece model under `name`."""

    def make(folder: Path) -> None:
        train_pieces(folder / name, LINES, **options)

    return make


def train_pieces(path: Path, lines: Iterable[str], **options: Any) -> None:
    """Train a SentencePiece model and write it to `path`; one thread, so always the same."""
    settings = {"vocab_size": 500, "model_type": "unigram", "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines] * 4),
        model_prefix=str(path.with_suffix("")),
        num_threads=1,
        minloglevel=2,
        **{**settings, **options},
    )
    path.with_suffix(".vocab").unlink()
    path.with_suffix(".model").rename(path)


def read_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The model as SentencePiece itself reads it."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def texts_of(path: Path) -> list[str]:
    """The pieces of a model, after unk, bos and eos, but for every 17th."""
    model = read_pieces(path)
    return [model.id_to_piece(number) for number in range(3, len(model)) if number % 17]


def byte_level(special: Sequence[str]) -> Callable[[Path], None]:
    """`vocab.json` and `merges.txt` as GPT-2 has them."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(
        backend,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[*special],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )


def word_end_bpe(special: Sequence[str]) -> Callable[[Path], None]:
    """`vocab.json` and `merges.txt` as GPT-1 has them."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(
        backend,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=[*special],
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )


def word_pieces(special: Sequence[str]) -> Callable[[Path], None]:
    """`vocab.txt` as BERT has it."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(
        backend,
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*special], show_progress=False),
    )


def _trained(backend: tokenizers.Tokenizer, trainer: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        backend.train_from_iterator(LINES, trainer)
        backend.model.save(str(folder))

    return make


def listed(*, languages: Sequence[str] = (), separate: bool = False) -> Callable[[Path], None]:
    """Marian's: a model for each side, and ids that are neither's. Some pieces have no id."""

    def make(folder: Path) -> None:
        train_pieces(folder / "source.spm", LINES)
        train_pieces(folder / "target.spm", TARGET_LINES, vocab_size=150)
        source, target = texts_of(folder / "source.spm"), texts_of(folder / "target.spm")
        both = source if separate else sorted({*source, *target})
        _write_ids(folder / "vocab.json", ["</s>", "<unk>", *both, *languages, "<pad>"])
        if separate:
            _write_ids(folder / "target_vocab.json", ["</s>", "<unk>", *target[::-1], "<pad>"])

    return make


def listed_for_many(**options: Any) -> Callable[[Path], None]:
    """M2M-100's: a model, and ids in another order. Some pieces have no id, an id no piece."""

    def make(folder: Path) -> None:
        train_pieces(folder / "sentencepiece.bpe.model", LINES, **options)
        found = texts_of(folder / "sentencepiece.bpe.model")
        _write_ids(folder / "vocab.json", [*FAIRSEQ[:4], *found[::-1], "madeupword"])

    return make


def _write_ids(path: Path, tokens: Sequence[str]) -> None:
    path.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
