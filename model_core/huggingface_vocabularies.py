"""Vocabularies of folders in the Hugging Face layout: `tokenizer.json`, else older files.

What older files mean is a table, `tokenizer_classes.py`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from model_core.older_vocabularies import Built, Folder, LanguageTokens
from model_core.subwords import set_frame
from model_core.tokenizer_classes import (
    CLASS_OF_MODEL,
    CLASSES,
    TokenizerClass,
    tokenizer_class,
)
from model_core.vocabularies import (
    Languages,
    SpecialTokens,
    TokenizationError,
    Vocabulary,
    add_tokens,
)

ROLES: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Where nothing names a class; other files could be anyone's.
CLASS_OF_FILE: Final = {"vocab.txt": "BertTokenizer"}


def read_vocabulary(files: Mapping[str, Path]) -> Vocabulary:
    """The vocabulary of a folder in the Hugging Face layout; `files` are its files by name.

    Raises `TokenizationError` where there is no vocabulary, or naming the class that isn't known
    or the file that is damaged.
    """
    own = _read_object(files, "tokenizer_config.json")
    config = {**_read_object(files, "special_tokens_map.json"), **own}
    name = _class_name(files, own)
    known = None if name is None else tokenizer_class(name)
    stated = {role: _token_text(config.get(f"{role}_token")) for role in ROLES}
    roles = {role: text for role, text in stated.items() if text is not None}
    if "tokenizer.json" in files:
        built = Built(_read_backend(files["tokenizer.json"]))
    elif known is not None:
        # A role that is stated to be null is none.
        unstated = {
            role: text for role, text in known.roles.items() if f"{role}_token" not in config
        }
        roles = {**unstated, **roles}
        built = known.build(Folder(files, config, roles))
        _add_stated_tokens(built, config, roles, files)
        _set_frame(built.backend, known, config, roles)
    else:
        raise _unknown_layout(name)
    languages = None
    if known is not None and known.languages is not None:
        languages = _languages(built.backend, known.languages, config)
        if "tokenizer.json" in files and languages is not None:
            _set_frame(built.backend, known, config, roles)
    return Vocabulary(
        built.backend,
        _special_tokens(built.backend, files, roles),
        _read_chat_template(files, own),
        languages,
        built.listed,
        built.target,
    )


def _class_name(files: Mapping[str, Path], own: Mapping[str, Any]) -> str | None:
    stated = own.get("tokenizer_class")
    if isinstance(stated, str):
        return stated
    model = _read_object(files, "config.json")
    stated = model.get("tokenizer_class") or CLASS_OF_MODEL.get(str(model.get("model_type")))
    by_file = next((name for file, name in CLASS_OF_FILE.items() if file in files), None)
    return stated or by_file


def _unknown_layout(name: str | None) -> TokenizationError:
    if name is None:
        return TokenizationError(
            "no vocabulary: expected tokenizer.json, or older files (vocab.txt, vocab.json, "
            "a SentencePiece model) and a tokenizer_class in tokenizer_config.json"
        )
    return TokenizationError(
        f"tokenizer_class {name} is not supported without a tokenizer.json; "
        f"supported: {', '.join(sorted(CLASSES))}"
    )


def _special_tokens(
    backend: Backend, files: Mapping[str, Path], roles: Mapping[str, str]
) -> SpecialTokens:
    # Generation may end at more tokens than the one called eos (a turn's end, say).
    has_generation = "generation_config.json" in files
    generation = _read_object(files, "generation_config.json" if has_generation else "config.json")
    ends = [_id_of(backend, roles.get("eos")), *_token_ids(generation.get("eos_token_id"))]
    return SpecialTokens(
        bos_id=_id_of(backend, roles.get("bos")),
        eos_ids=frozenset(token_id for token_id in ends if token_id is not None),
        pad_id=_id_of(backend, roles.get("pad")),
        texts={f"{role}_token": text for role, text in roles.items()},
    )


# --- tokens beside the vocabulary -----------------------------------------------------------------


@dataclass(frozen=True)
class _StatedToken:
    """A token that the configuration mentions, with the id it has to have, where that is said."""

    token: AddedToken
    token_id: int | None = None


def _add_stated_tokens(
    built: Built, config: Mapping[str, Any], roles: Mapping[str, str], files: Mapping[str, Path]
) -> None:
    """Add the tokens of the configuration: at their ids where those are said, else at the end."""
    for stated in _stated_tokens(config, roles, files, built.backend):
        text = stated.token.content
        add_tokens(built.backend, [stated.token], special=stated.token.special)
        token_id = built.backend.token_to_id(text)
        if stated.token_id not in (None, token_id):
            raise TokenizationError(
                f"the token {text!r} is to have the id {stated.token_id}, "
                f"but the vocabulary makes it {token_id}"
            )
        if built.listed is not None and token_id is not None and token_id >= built.listed.begin:
            raise TokenizationError(f"the vocabulary lacks {text!r}, and has no room for more")
        if built.target is not None and built.target.token_to_id(text) is not None:
            add_tokens(built.target, [stated.token], special=stated.token.special)


def _stated_tokens(
    config: Mapping[str, Any], roles: Mapping[str, str], files: Mapping[str, Path], backend: Backend
) -> Iterator[_StatedToken]:
    listed: dict[int, AddedToken] = {
        _id_in("added_tokens.json", number): AddedToken(text, normalized=False)
        for text, number in _read_object(files, "added_tokens.json").items()
    }
    described = cast("Mapping[str, Any]", config.get("added_tokens_decoder") or {})
    listed |= {
        _id_in("added_tokens_decoder", number): _added_token(token)
        for number, token in described.items()
    }
    for number, token in sorted(listed.items()):
        token.special = token.special or token.content in roles.values()
        yield _StatedToken(token, number)
    seen = {token.content for token in listed.values()}
    extra: object = config.get("additional_special_tokens") or config.get("extra_special_tokens")
    for role, text in roles.items():
        # A default that the vocabulary lacks is none of its tokens.
        is_known = f"{role}_token" in config or backend.token_to_id(text) is not None
        if is_known and text not in seen:
            yield _StatedToken(_added_token(config.get(f"{role}_token", text), special=True))
    for token in cast("list[object]", extra if isinstance(extra, list) else []):
        if _token_text(token) not in seen:
            yield _StatedToken(_added_token(token, special=True))


def _id_in(name: str, value: object) -> int:
    if not isinstance(value, int) and not (isinstance(value, str) and value.isdecimal()):
        raise TokenizationError(f"{name}: {value!r} is no token id")
    return int(value)


def _added_token(value: object, *, special: bool | None = None) -> AddedToken:
    """A token as the configuration writes it: a text, or an object with its attributes."""
    text = _token_text(value)
    if text is None:
        raise TokenizationError(f"{value!r} is no token: expected a text, or 'content' with one")
    stated: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        stated = cast("Mapping[str, Any]", value)
    return AddedToken(
        text,
        special=bool(stated.get("special", False)) if special is None else special,
        lstrip=bool(stated.get("lstrip", False)),
        rstrip=bool(stated.get("rstrip", False)),
        single_word=bool(stated.get("single_word", False)),
        normalized=bool(stated.get("normalized", False)),
    )


# --- frames and languages -------------------------------------------------------------------------


def _set_frame(
    backend: Backend, known: TokenizerClass, config: Mapping[str, Any], roles: Mapping[str, str]
) -> None:
    spoken = known.languages
    source = None if spoken is None else config.get("src_lang") or spoken.source
    language = {} if spoken is None or source is None else {"language": spoken.token(source)}
    set_frame(backend, known.frame(config), {**known.roles, **roles, **language})


def _languages(
    backend: Backend, spoken: LanguageTokens, config: Mapping[str, Any]
) -> Languages | None:
    before, after = spoken.spelling.split("{}")
    codes = spoken.codes_in(config)
    if codes is None:
        codes = [
            token[len(before) : -len(after)]
            for token in backend.get_vocab()
            if token.startswith(before) and token.endswith(after)
        ]
    found = {code: backend.token_to_id(spoken.token(code)) for code in codes}
    ids = {code: number for code, number in sorted(found.items()) if number is not None}
    if not ids:
        return None
    source = spoken.source and (config.get("src_lang") or spoken.source)
    if source is not None and source not in ids:
        raise TokenizationError(f"src_lang is {source!r}; the vocabulary has {', '.join(ids)}")
    return Languages(ids, spoken.marker, source)


# --- files ----------------------------------------------------------------------------------------


def _read_object(files: Mapping[str, Path], name: str) -> Mapping[str, Any]:
    if name not in files:
        return {}
    try:
        value: object = json.loads(files[name].read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizationError(f"{files[name]} can't be read: {error}") from error
    if not isinstance(value, dict):
        raise TokenizationError(f"{files[name]} has to hold a JSON object")
    return cast("Mapping[str, Any]", value)


def _read_backend(path: Path) -> Backend:
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizationError(f"{path} is not a tokenizer: {error}") from error


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
