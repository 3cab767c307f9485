"""A vocabulary made of the texts to train on, written in the Hugging Face layout.

The tokenizers library learns it; here is what a vocabulary needs beside its pieces: the tokens with
a role, by what the model is for, and what frames a text.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from model_core.subwords import NO_FRAME, TYPED_PAIR, Frame, bos_eos_frame, set_frame
from model_core.training.errors import TrainingError


class VocabularyKind(StrEnum):
    """How text is cut into tokens.

    The library breaks ties by chance in word pieces and Unigram: two runs learn vocabularies that
    differ a little. A run that goes on keeps its own.
    """

    BPE = "bpe"  # byte-level: any text, no unknown token (Radford et al. 2019)
    WORD_PIECE = "wordpiece"  # BERT's (Devlin et al. 2018)
    UNIGRAM = "unigram"  # the likeliest pieces (Kudo 2018)
    WORDS = "words"  # what a pattern matches, whole; other words are unknown


@dataclass(frozen=True, slots=True)
class Conventions:
    """The tokens with a role, what frames a text, and the token for what has none."""

    roles: Mapping[str, str]
    frame: Frame
    unknown: str


WRITING: Final = Conventions(
    {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"}, NO_FRAME, "<|unknown|>"
)
"""GPT's: one token between texts, nothing around a prompt."""

READING: Final = Conventions(
    {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    TYPED_PAIR,
    "[UNK]",
)
"""BERT's."""

TRANSLATING: Final = Conventions(
    {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    bos_eos_frame(bos=False, eos=True),
    "<unk>",
)
"""An encoder-decoder's: texts end with a token, targets begin with another."""


@dataclass(frozen=True, slots=True)
class VocabularyRecipe:
    """What to learn: at most `size` tokens, of pieces that occur `min_frequency` times at least.

    `pattern` is what a word is, for `WORDS`; `lowercase` makes texts lowercase first.
    """

    kind: VocabularyKind
    size: int
    min_frequency: int = 2
    lowercase: bool = False
    pattern: str = r"\S+"


Setup = Callable[[VocabularyRecipe, str, list[str]], tuple[Backend, Any]]
"""(recipe, unknown token, tokens with a role) → an empty backend and what trains it."""


def byte_pairs(recipe: VocabularyRecipe, unknown: str, special: list[str]) -> tuple[Backend, Any]:
    """Byte-level BPE; every byte is a token, so nothing is unknown."""
    del unknown
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend, trainers.BpeTrainer(
        vocab_size=recipe.size,
        min_frequency=recipe.min_frequency,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def word_pieces(recipe: VocabularyRecipe, unknown: str, special: list[str]) -> tuple[Backend, Any]:
    """BERT's: words and punctuation, then pieces of words."""
    backend = Backend(models.WordPiece(unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(lowercase=recipe.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend, trainers.WordPieceTrainer(
        vocab_size=recipe.size,
        min_frequency=recipe.min_frequency,
        special_tokens=with_token(special, unknown),
        show_progress=False,
    )


def likeliest_pieces(
    recipe: VocabularyRecipe, unknown: str, special: list[str]
) -> tuple[Backend, Any]:
    """SentencePiece's Unigram: spaces are part of the pieces."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend, trainers.UnigramTrainer(
        vocab_size=recipe.size,
        special_tokens=with_token(special, unknown),
        unk_token=unknown,
        show_progress=False,
    )


def whole_words(recipe: VocabularyRecipe, unknown: str, special: list[str]) -> tuple[Backend, Any]:
    """What the pattern matches; what lies between is left out."""
    backend = Backend(models.WordLevel(unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(recipe.pattern), "removed", invert=True)
    return backend, trainers.WordLevelTrainer(
        vocab_size=recipe.size,
        min_frequency=recipe.min_frequency,
        special_tokens=with_token(special, unknown),
        show_progress=False,
    )


SETUPS: Final[Mapping[VocabularyKind, Setup]] = {
    VocabularyKind.BPE: byte_pairs,
    VocabularyKind.WORD_PIECE: word_pieces,
    VocabularyKind.UNIGRAM: likeliest_pieces,
    VocabularyKind.WORDS: whole_words,
}


def with_token(tokens: list[str], token: str) -> list[str]:
    """`tokens` with `token` among them."""
    return tokens if token in tokens else [*tokens, token]


def learn_vocabulary(
    recipe: VocabularyRecipe, texts: Iterable[str], conventions: Conventions
) -> Backend:
    """A vocabulary of `texts`, framing what it encodes as `conventions` have it.

    Raises `TrainingError` where the library can't make one of that size.
    """
    special = list(dict.fromkeys(conventions.roles.values()))
    backend, trainer = SETUPS[recipe.kind](recipe, conventions.unknown, special)
    if recipe.lowercase and recipe.kind is not VocabularyKind.WORD_PIECE:
        lowercase = normalizers.Lowercase()
        steps = [lowercase] if backend.normalizer is None else [lowercase, backend.normalizer]
        backend.normalizer = normalizers.Sequence(steps)
    try:
        cast("Any", backend).train_from_iterator(texts, trainer)
    except Exception as error:  # the library raises nothing narrower
        raise TrainingError(
            f"no {recipe.kind} vocabulary of {recipe.size} tokens can be learned: {error}"
        ) from error
    set_frame(backend, conventions.frame, conventions.roles)
    return backend


def write_vocabulary(backend: Backend, conventions: Conventions, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json` into an existing folder."""
    stated = {f"{role}_token": token for role, token in conventions.roles.items()}
    # What the ecosystem calls a tokenizer that is its tokenizer.json and nothing else.
    stated["tokenizer_class"] = "PreTrainedTokenizerFast"
    backend.save(str(folder / "tokenizer.json"))
    text = json.dumps(stated, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
