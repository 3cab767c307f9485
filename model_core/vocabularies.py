"""Vocabularies of the Hugging Face layout: `tokenizer.json`, else BERT's `vocab.txt`.

GGUF's are `gguf_vocabularies.py`'s; encoding and decoding are `tokenization.py`'s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

ROLES: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class TokenizationError(Exception):
    """A text or a vocabulary that can't be used; the message names the position or the key."""


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens with a role. `texts` has them as chat templates call them: "bos_token", …"""

    bos_id: int | None
    eos_ids: frozenset[int]
    pad_id: int | None
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer of the library, the tokens with a role and the chat template, if any."""

    backend: Backend
    special: SpecialTokens
    chat_template: str | None


def read_vocabulary(files: Mapping[str, Path]) -> Vocabulary:
    """The vocabulary of a folder in the Hugging Face layout; `files` are its files by name.

    Raises `TokenizationError` where there is neither tokenizer.json nor vocab.txt, or naming the
    file that is damaged.
    """
    config = _read_object(files, "tokenizer_config.json")
    if "tokenizer.json" in files:
        backend = _read_backend(files["tokenizer.json"])
    elif "vocab.txt" in files:
        backend = _read_word_pieces(files["vocab.txt"], config)
    else:
        raise TokenizationError("no vocabulary: expected tokenizer.json, or BERT's vocab.txt")

    stated = {**_read_object(files, "special_tokens_map.json"), **config}
    texts = {
        f"{role}_token": text
        for role in ROLES
        if (text := _token_text(stated.get(f"{role}_token"))) is not None
    }
    eos_ids = {backend.token_to_id(texts["eos_token"])} if "eos_token" in texts else set[int]()
    # Generation may end at more tokens than the one called eos (a turn's end, say).
    has_generation = "generation_config.json" in files
    generation = _read_object(files, "generation_config.json" if has_generation else "config.json")
    eos_ids.update(_token_ids(generation.get("eos_token_id")))
    special = SpecialTokens(
        bos_id=_id_of(backend, texts.get("bos_token")),
        eos_ids=frozenset(token_id for token_id in eos_ids if token_id is not None),
        pad_id=_id_of(backend, texts.get("pad_token")),
        texts=texts,
    )
    return Vocabulary(backend, special, _read_chat_template(files, config))


def _read_object(files: Mapping[str, Path], name: str) -> Mapping[str, Any]:
    if name not in files:
        return {}
    try:
        value: object = json.loads(files[name].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizationError(f"{files[name]} can't be read: {error}") from error
    if not isinstance(value, dict):
        raise TokenizationError(f"{files[name]} has to hold a JSON object")
    return cast("Mapping[str, Any]", value)


def _read_backend(path: Path) -> Backend:
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizationError(f"{path} is not a tokenizer: {error}") from error


def _read_word_pieces(path: Path, config: Mapping[str, Any]) -> Backend:
    try:
        tokens = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizationError(f"{path} can't be read: {error}") from error
    roles = {
        role: _token_text(config.get(f"{role}_token")) or f"[{role.upper()}]"
        for role in ("unk", "sep", "pad", "cls", "mask")
    }
    lowercase = bool(config.get("do_lower_case", True))
    return build_word_pieces(
        {token: number for number, token in enumerate(tokens)},
        roles,
        normalizers.BertNormalizer(
            lowercase=lowercase,
            strip_accents=config.get("strip_accents"),
            handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        ),
    )


def build_word_pieces(
    vocabulary: dict[str, int], roles: Mapping[str, str], normalizer: normalizers.Normalizer
) -> Backend:
    """BERT's WordPiece (Wu et al. 2016), as [CLS] A [SEP] and [CLS] A [SEP] B [SEP].

    `roles` are the texts of unk, sep, pad, cls and mask; all but mask have to be in `vocabulary`.
    """
    missing = [
        roles[role] for role in ("unk", "sep", "pad", "cls") if roles[role] not in vocabulary
    ]
    if missing:
        raise TokenizationError(f"the vocabulary lacks {', '.join(missing)}")
    cls, sep = roles["cls"], roles["sep"]
    backend = Backend(models.WordPiece(vocabulary, unk_token=roles["unk"]))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    known = [text for text in roles.values() if text in vocabulary]
    add_tokens(backend, known, special=True)
    return backend


def add_tokens(backend: Backend, texts: Sequence[str], *, special: bool) -> None:
    """Have `texts` kept whole wherever they are written; special ones are skipped in decoding."""
    tokens = [AddedToken(text, special=special, normalized=False) for text in texts]
    add = backend.add_special_tokens if special else backend.add_tokens  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    add(tokens)


def _token_text(value: object) -> str | None:
    """A special token is written as a text or as an object with its `content`."""
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get("content")
    return value if isinstance(value, str) else None


def _token_ids(value: object) -> list[int]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int)]


def _id_of(backend: Backend, text: str | None) -> int | None:
    return None if text is None else backend.token_to_id(text)


def read_template(path: Path) -> str:
    """A chat template, its line ends as they are; `TokenizationError` names a damaged file."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizationError(f"{path} can't be read: {error}") from error


def _read_chat_template(files: Mapping[str, Path], config: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        return read_template(files["chat_template.jinja"])
    template: object = config.get("chat_template")
    if isinstance(template, list):
        # Several, by name; the others are for tools or retrieval.
        entries = cast("list[Mapping[str, object]]", template)
        template = next(
            (entry.get("template") for entry in entries if entry.get("name") == "default"), None
        )
    return template if isinstance(template, str) else None
