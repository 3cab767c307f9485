"""Readers of the vocabulary files from before `tokenizer.json`.

Each makes a tokenizer of a folder, without frame and without tokens that are added to it. Which
checkpoint wants which reader is the table in `tokenizer_classes.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from model_core.languages import M2M100_CODES, MBART50_CODES, MBART_CODES, NLLB_CODES, WMT21_CODES
from model_core.sentence_pieces import read_sentence_pieces
from model_core.subwords import (
    Prefix,
    Splitting,
    build_byte_level,
    build_sentence_pieces,
    build_word_end_bpe,
    build_word_pieces,
)
from model_core.vocabularies import Listed, Marker, TokenizationError, add_tokens


@dataclass(frozen=True)
class Folder:
    """A checkpoint's files by name, what its configuration says, and its tokens by role."""

    files: Mapping[str, Path]
    config: Mapping[str, Any]
    roles: Mapping[str, str]

    def first(self, names: Sequence[str]) -> Path:
        """The first of `names` that is there; `TokenizationError` naming them all if none is."""
        found = next((self.files[name] for name in names if name in self.files), None)
        if found is None:
            raise TokenizationError(f"the checkpoint lacks {' or '.join(names)}")
        return found

    def token(self, role: str) -> str:
        """The token of a role; `TokenizationError` where the configuration says there is none."""
        if role not in self.roles:
            raise TokenizationError(f"the vocabulary needs a {role}_token, which is null")
        return self.roles[role]


@dataclass(frozen=True)
class Built:
    """A tokenizer without its frame; see `Vocabulary` for the others."""

    backend: Backend
    listed: Listed | None = None
    target: Backend | None = None


@dataclass(frozen=True)
class LanguageTokens:
    """The languages of a class, in the order of their ids, and how their tokens are written.

    `codes` None: what the vocabulary has in that spelling. `sets` are other codes, by the name
    that a configuration calls them. `source` is the default.
    """

    codes: tuple[str, ...] | None
    spelling: str
    marker: Marker
    source: str | None
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def codes_in(self, config: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The codes of a checkpoint; `TokenizationError` naming a set that isn't known."""
        name = config.get("language_codes")
        if not self.sets or name is None:
            return self.codes
        if name not in self.sets:
            accepted = ", ".join(self.sets)
            raise TokenizationError(f"language_codes is {name!r}; accepted: {accepted}")
        return self.sets[name]

    def token(self, code: str) -> str:
        """The token of a language."""
        return self.spelling.format(code)


# --- languages ------------------------------------------------------------------------------------

MBART_LANGUAGES: Final = LanguageTokens(MBART_CODES, "{}", Marker.SOURCE_LAST, "en_XX")
MBART50_LANGUAGES: Final = LanguageTokens(MBART50_CODES, "{}", Marker.SOURCE_FIRST, "en_XX")
NLLB_LANGUAGES: Final = LanguageTokens(NLLB_CODES, "{}", Marker.SOURCE_FIRST, "eng_Latn")
M2M100_LANGUAGES: Final = LanguageTokens(
    M2M100_CODES,
    "__{}__",
    Marker.SOURCE_FIRST,
    "en",
    MappingProxyType({"m2m100": M2M100_CODES, "wmt21": WMT21_CODES}),
)
MARIAN_LANGUAGES: Final = LanguageTokens(None, ">>{}<<", Marker.TARGET_FIRST, None)

# Far above any vocabulary: an id beyond is damage, and no reason to fill the memory.
MAX_TOKENS: Final = 1 << 24

# --- WordPiece and BPE ----------------------------------------------------------------------------


def word_pieces(folder: Folder) -> Built:
    """BERT's `vocab.txt`: a token a line."""
    path = folder.first(["vocab.txt"])
    try:
        # Not splitlines: some vocabularies have tokens that it takes for ends of lines.
        tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizationError(f"{path} can't be read: {error}") from error
    vocabulary = {token: number for number, token in enumerate(tokens)}
    _require(path, vocabulary, [folder.token(role) for role in ("unk", "sep", "pad", "cls")])
    config = folder.config
    normalizer = normalizers.BertNormalizer(
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
    )
    return Built(build_word_pieces(vocabulary, folder.token("unk"), normalizer))


def byte_level(splitting: Splitting, folder: Folder) -> Built:
    """GPT-2's `vocab.json` and `merges.txt`."""
    merges = folder.first(["merges.txt"])
    backend = build_byte_level(
        _read_ids(folder.first(["vocab.json"])),
        _read_merges(merges),
        splitting,
        source=f"the merges of {merges}",
        adds_prefix=bool(folder.config.get("add_prefix_space", False)),
    )
    return Built(backend)


def word_end_bpe(folder: Folder) -> Built:
    """GPT-1's `vocab.json` and `merges.txt`, over lowercase words with an end mark."""
    path, merges = folder.first(["vocab.json"]), folder.first(["merges.txt"])
    vocabulary, unk = _read_ids(path), folder.token("unk")
    _require(path, vocabulary, [unk])
    source = f"the merges of {merges}"
    return Built(build_word_end_bpe(vocabulary, _read_merges(merges), unk, source=source))


def _require(path: Path, vocabulary: Mapping[str, int], tokens: Sequence[str]) -> None:
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise TokenizationError(f"{path}: the vocabulary lacks {', '.join(missing)}")


def _read_ids(path: Path) -> dict[str, int]:
    try:
        ids: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizationError(f"{path} can't be read: {error}") from error
    if not isinstance(ids, dict):
        raise TokenizationError(f"{path} has to hold an id for each token")
    for token, number in cast("dict[str, object]", ids).items():
        if not isinstance(number, int) or not 0 <= number < MAX_TOKENS:
            raise TokenizationError(
                f"{path}: the id of {token!r} is {number!r}, expected 0 to {MAX_TOKENS - 1}"
            )
    return cast("dict[str, int]", ids)


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizationError(f"{path} can't be read: {error}") from error
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise TokenizationError(f"{path}, line {number}: {line!r} is not a pair")
        merges.append((left, right))
    return merges


# --- SentencePiece --------------------------------------------------------------------------------

MODEL_FILES: Final = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model")


@dataclass(frozen=True)
class Arranged:
    """A vocabulary's tokens in the order of their ids, and those that only occur whole.

    `listed`: the order is that of a file, and not every piece has to be there.
    """

    tokens: Sequence[str]
    special: Sequence[str] = ()
    listed: bool = False


Arrangement = Callable[[Sequence[str], Folder], Arranged]


def as_trained(pieces: Sequence[str], _: Folder) -> Arranged:
    """The model's own order."""
    return Arranged(pieces)


def with_mask(pieces: Sequence[str], folder: Folder) -> Arranged:
    """The model's own order, and the mask at the end unless it is a piece."""
    mask = folder.token("mask")
    return Arranged(pieces if mask in pieces else [*pieces, mask])


def with_sentinels(pieces: Sequence[str], folder: Folder) -> Arranged:
    """T5's, which count down from the vocabulary's end."""
    count = folder.config.get("extra_ids", 100)
    if not isinstance(count, int) or not 0 <= count < MAX_TOKENS:
        raise TokenizationError(f"extra_ids is {count!r}, expected a number of tokens")
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(count))]
    return Arranged([*pieces, *sentinels], sentinels)


def as_fairseq(languages: Sequence[str], pieces: Sequence[str], folder: Folder) -> Arranged:
    """fairseq's four tokens in place of SentencePiece's three, and its own at the end."""
    first = [folder.token(role) for role in ("bos", "pad", "eos", "unk")]
    return Arranged([*first, *pieces[3:], *languages, folder.token("mask")], languages)


def _as_listed(folder: Folder, names: Sequence[str]) -> list[str]:
    ids = _read_ids(folder.first(names))
    # An id without a token is given a text that never occurs.
    tokens = [f" {number}" for number in range(max(ids.values(), default=-1) + 1)]
    for token, number in ids.items():
        tokens[number] = token
    return tokens


def listed_before_languages(_: Sequence[str], folder: Folder) -> Arranged:
    """M2M-100's: the ids of `vocab.json`, then the languages."""
    codes = M2M100_LANGUAGES.codes_in(folder.config) or ()
    spoken = [M2M100_LANGUAGES.token(code) for code in codes]
    return Arranged([*_as_listed(folder, ["vocab.json"]), *spoken], spoken, listed=True)


def sentence_pieces(
    arrange: Arrangement,
    folder: Folder,
    *,
    names: Sequence[str] = MODEL_FILES,
    before: Sequence[normalizers.Normalizer] = (),
    prefix: Prefix = Prefix.MODEL,
) -> Built:
    """A SentencePiece model, the first that is there of `names`; see `build_sentence_pieces`."""
    path = folder.first(names)
    model = read_sentence_pieces(path)
    arranged = arrange([piece.text for piece in model.pieces], folder)
    try:
        backend = build_sentence_pieces(
            model,
            arranged.tokens,
            unk=folder.token("unk"),
            special=[*folder.roles.values(), *arranged.special],
            before=before,
            prefix=prefix,
        )
    except TokenizationError as error:
        raise TokenizationError(f"{path}: {error}") from error
    add_tokens(backend, arranged.special, special=True)
    unk_id = backend.token_to_id(folder.token("unk"))
    if not arranged.listed or unk_id is None:
        return Built(backend)
    return Built(backend, Listed(len(arranged.tokens), unk_id))


def albert(folder: Folder) -> Built:
    """Lowercase and without accents before the model sees it, unless said otherwise."""
    config = folder.config
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
    ]
    if not config.get("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if config.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return sentence_pieces(as_trained, folder, before=steps)


def deberta_v2(folder: Folder) -> Built:
    """The model's pieces and a mask."""
    if folder.config.get("split_by_punct", False):
        raise TokenizationError("split_by_punct is true, which isn't supported")
    lowercase = [normalizers.Lowercase()] if folder.config.get("do_lower_case", False) else []
    return sentence_pieces(with_mask, folder, before=lowercase)


def llama(folder: Folder) -> Built:
    """The model's pieces; `legacy: false` marks no word after a special token as a new one."""
    prefix = Prefix.START if folder.config.get("legacy") is False else Prefix.MODEL
    if not folder.config.get("add_prefix_space", True):
        prefix = Prefix.NONE
    return sentence_pieces(as_trained, folder, prefix=prefix)


def marian(folder: Folder) -> Built:
    """Two models of pieces, one list of ids, or one each."""
    if not folder.config.get("separate_vocabs", False):
        return sentence_pieces(_marian_source, folder, names=["source.spm"])
    source = sentence_pieces(_marian_source, folder, names=["source.spm"])
    target = sentence_pieces(_marian_target, folder, names=["target.spm"])
    return Built(source.backend, source.listed, target.backend)


def _marian_source(_: Sequence[str], folder: Folder) -> Arranged:
    tokens = _as_listed(folder, ["vocab.json"])
    languages = [token for token in tokens if token.startswith(">>") and token.endswith("<<")]
    return Arranged(tokens, languages, listed=True)


def _marian_target(_: Sequence[str], folder: Folder) -> Arranged:
    return Arranged(_as_listed(folder, ["target_vocab.json"]), listed=True)
