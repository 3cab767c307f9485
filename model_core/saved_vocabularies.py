"""Vocabularies as this project keeps them: the library's file, and what that has no place for."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer as Backend

from model_core.huggingface_vocabularies import read_template
from model_core.vocabularies import (
    Languages,
    Listed,
    Marker,
    SpecialTokens,
    TokenizationError,
    Vocabulary,
)

BACKEND_FILE: Final = "tokenizer.json"
TARGET_FILE: Final = "target_tokenizer.json"
OPTIONS_FILE: Final = "tokenizer_options.json"
TEMPLATE_FILE: Final = "chat_template.jinja"


def load_vocabulary(folder: Path) -> Vocabulary:
    """What `save_vocabulary` wrote. Raises `TokenizationError` naming the file that is wrong."""
    backend = _load_backend(folder / BACKEND_FILE)
    try:
        text = (folder / OPTIONS_FILE).read_text(encoding="utf-8")
        options: dict[str, Any] = json.loads(text)
        special = SpecialTokens(
            bos_id=options["bos_id"],
            eos_ids=frozenset(options["eos_ids"]),
            pad_id=options["pad_id"],
            texts=options["special_tokens"],
        )
        languages, listed = options.get("languages"), options.get("listed")
        if languages is not None:
            languages = Languages(
                languages["ids"], Marker(languages["marker"]), languages["source"]
            )
        listed = None if listed is None else Listed(**listed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenizationError(f"{folder / OPTIONS_FILE} can't be read: {error!r}") from error
    template = folder / TEMPLATE_FILE
    chat_template = read_template(template) if template.is_file() else None
    has_target = (folder / TARGET_FILE).is_file()
    target = _load_backend(folder / TARGET_FILE) if has_target else None
    return Vocabulary(backend, special, chat_template, languages, listed, target)


def save_vocabulary(vocabulary: Vocabulary, folder: Path) -> list[str]:
    """Write into an existing `folder` all that `load_vocabulary` needs; gives the files' names."""
    special, listed, languages = vocabulary.special, vocabulary.listed, vocabulary.languages
    options = {
        "bos_id": special.bos_id,
        "eos_ids": sorted(special.eos_ids),
        "pad_id": special.pad_id,
        "special_tokens": dict(special.texts),
        "languages": None if languages is None else asdict(languages),
        "listed": None if listed is None else asdict(listed),
    }
    texts = {
        BACKEND_FILE: vocabulary.backend.to_str(),
        OPTIONS_FILE: json.dumps(options, indent=1, ensure_ascii=False) + "\n",
    }
    if vocabulary.target is not None:
        texts[TARGET_FILE] = vocabulary.target.to_str()
    if vocabulary.chat_template is not None:
        texts[TEMPLATE_FILE] = vocabulary.chat_template
    for name, text in texts.items():
        # newline="": a template's line ends are part of it.
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return list(texts)


def _load_backend(path: Path) -> Backend:
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizationError(f"{path} can't be read: {error}") from error
