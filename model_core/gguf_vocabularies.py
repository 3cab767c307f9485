"""Vocabularies of GGUF files: byte-level BPE, SentencePiece's BPE and WordPiece.

A GGUF file has the tokens, the merges or scores, and of how text is split beforehand only a name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from model_core.subwords import (
    GPT2_SPLIT,
    LLAMA3_SPLIT,
    QWEN2_SPLIT,
    SPACE_MARK,
    TYPED_PAIR,
    Splitting,
    bos_eos_frame,
    build_bpe,
    build_byte_level,
    build_word_pieces,
    byte_fallback_decoder,
    merges_from_scores,
    set_frame,
)
from model_core.vocabularies import SpecialTokens, TokenizationError, Vocabulary, add_tokens

# GGUF's token types.
UNKNOWN: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4

DIGITS_APART: Final = Splitting((r"\p{N}", GPT2_SPLIT))
LLAMA3: Final = Splitting((LLAMA3_SPLIT,), whole_words=True, adds_bos=True)
SPLITTINGS: Final[Mapping[str, Splitting]] = MappingProxyType(
    {
        # For files from before the field existed; llama.cpp's reading of them.
        "default": Splitting((r"[\p{P}\$\+<=>\^~\|]+", GPT2_SPLIT, r"\p{N}+", "[0-9][0-9][0-9]")),
        "gpt-2": Splitting((GPT2_SPLIT,)),
        "phi-2": Splitting((GPT2_SPLIT,)),
        "olmo": Splitting((GPT2_SPLIT,)),
        "smollm": DIGITS_APART,
        "starcoder": DIGITS_APART,
        "refact": DIGITS_APART,
        "llama-bpe": LLAMA3,
        "llama3": LLAMA3,
        "llama-v3": LLAMA3,
        "qwen2": Splitting((QWEN2_SPLIT,), composes=True),
        "deepseek-r1-qwen": Splitting((QWEN2_SPLIT,)),
    }
)


class _Keys:
    """The `tokenizer.ggml.*` keys of a GGUF file's metadata, checked."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self.metadata = metadata

    def value(self, name: str, kind: type[Any], default: Any = None) -> Any:
        value = self.metadata.get(f"tokenizer.ggml.{name}", default)
        if value is not None and not isinstance(value, kind):
            raise TokenizationError(
                f"tokenizer.ggml.{name} is a {type(value).__name__}, expected {kind.__name__}"
            )
        return value

    def token_id(self, name: str, default: int | None = None) -> int | None:
        value: int | None = self.value(f"{name}_token_id", int, default)
        if value is not None and not 0 <= value < len(self.tokens):
            raise TokenizationError(
                f"tokenizer.ggml.{name}_token_id is {value}, outside the {len(self.tokens)} tokens"
            )
        return value

    def column(self, name: str) -> list[Any]:
        """A list with an entry for each token."""
        values: list[Any] | None = self.value(name, list)
        if values is None or len(values) != len(self.tokens):
            raise TokenizationError(
                f"tokenizer.ggml.{name} has {len(values or [])} entries for "
                f"{len(self.tokens)} tokens"
            )
        return values

    @property
    def tokens(self) -> list[str]:
        tokens: list[str] | None = self.value("tokens", list)
        if not tokens:
            raise TokenizationError("tokenizer.ggml.tokens is missing or empty")
        return tokens

    @property
    def vocabulary(self) -> dict[str, int]:
        # The first of equal tokens wins: padding entries repeat at the end.
        return {text: number for number, text in reversed(list(enumerate(self.tokens)))}


def build_gguf_vocabulary(metadata: Mapping[str, object]) -> Vocabulary:
    """The vocabulary in a GGUF file's metadata: byte-level BPE, SentencePiece's BPE or WordPiece.

    Raises `TokenizationError` naming an unknown model or splitting, or the key that is damaged.
    """
    keys = _Keys(metadata)
    model = keys.value("model", str)
    if model not in BUILDERS:
        raise TokenizationError(
            f"tokenizer.ggml.model is {model!r}; accepted: {', '.join(BUILDERS)}"
        )
    built = BUILDERS[model](keys)
    # A turn's or a message's end ends a generation too.
    ends = (built.roles.get("eos"), keys.token_id("eot"), keys.token_id("eom"))
    special = SpecialTokens(
        bos_id=built.roles.get("bos"),
        eos_ids=frozenset(token_id for token_id in ends if token_id is not None),
        pad_id=built.roles.get("pad"),
        texts={f"{role}_token": keys.tokens[number] for role, number in built.roles.items()},
    )
    template = metadata.get("tokenizer.chat_template")
    return Vocabulary(built.backend, special, template if isinstance(template, str) else None)


@dataclass(frozen=True)
class _Built:
    """A tokenizer from GGUF and the ids of its tokens with a role."""

    backend: Backend
    roles: Mapping[str, int]


def _roles(**found: int | None) -> dict[str, int]:
    return {role: number for role, number in found.items() if number is not None}


def _build_byte_level(keys: _Keys) -> _Built:
    name = keys.value("pre", str, "default")
    if name not in SPLITTINGS:
        raise TokenizationError(
            f"tokenizer.ggml.pre is {name!r}; accepted: {', '.join(SPLITTINGS)}"
        )
    splitting = SPLITTINGS[name]
    merges = [tuple(str(merge).split(" ")) for merge in keys.value("merges", list, [])]
    for number, merge in enumerate(merges):
        if len(merge) != 2:
            raise TokenizationError(f"tokenizer.ggml.merges[{number}] is not a pair: {merge}")
    pairs = cast("list[tuple[str, str]]", merges)
    backend = build_byte_level(keys.vocabulary, pairs, splitting, source="tokenizer.ggml.merges")
    roles = _roles(
        bos=keys.token_id("bos"),
        eos=keys.token_id("eos"),
        unk=keys.token_id("unknown"),
        pad=keys.token_id("padding"),
    )
    _add_special_tokens(backend, keys, roles)
    _add_frame(backend, keys, roles, bos=splitting.adds_bos, eos=False)
    return _Built(backend, roles)


def _build_sentence_pieces(keys: _Keys) -> _Built:
    """SentencePiece's BPE: merges follow from the scores; unknown characters become bytes."""
    vocabulary = keys.vocabulary
    scores = dict(zip(keys.tokens, keys.column("scores"), strict=True))
    # llama.cpp's defaults, for files that don't say.
    roles = _roles(
        bos=keys.token_id("bos", 1),
        eos=keys.token_id("eos", 2),
        unk=keys.token_id("unknown", 0),
        pad=keys.token_id("padding"),
    )
    backend = build_bpe(
        vocabulary,
        merges_from_scores(vocabulary, scores),
        source="tokenizer.ggml.tokens",
        unk_token=keys.tokens[roles["unk"]],
        fuse_unk=True,
        byte_fallback=True,
    )
    prefixes = bool(keys.value("add_space_prefix", bool, True))
    marks = normalizers.Replace(" ", SPACE_MARK)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE_MARK), marks] if prefixes else [marks]
    )
    backend.decoder = byte_fallback_decoder(strips=prefixes)
    _add_special_tokens(backend, keys, roles)
    _add_frame(backend, keys, roles, bos=True, eos=False)
    return _Built(backend, roles)


def _build_gguf_word_pieces(keys: _Keys) -> _Built:
    """BERT's, which GGUF spells the other way round: words are marked, continuations bare."""
    tokens = [_bert_spelling(token) for token in keys.tokens]
    named = ("unknown", "unk"), ("seperator", "sep"), ("padding", "pad"), ("cls", "cls")
    ids = {role: keys.token_id(name) for name, role in named}
    # The key's spelling is GGUF's own; later writers corrected it.
    ids["sep"] = keys.token_id("separator", ids["sep"])
    ids["cls"] = keys.token_id("bos") if ids["cls"] is None else ids["cls"]
    roles = {
        role: f"[{role.upper()}]" if number is None else tokens[number]
        for role, number in ids.items()
    }
    vocabulary = {token: number for number, token in enumerate(tokens)}
    mask = keys.token_id("mask")
    roles["mask"] = "[MASK]" if mask is None else tokens[mask]
    normalizer = normalizers.BertNormalizer(lowercase=True)
    backend = build_word_pieces(vocabulary, roles["unk"], normalizer)
    known = {role: vocabulary[text] for role, text in roles.items() if text in vocabulary}
    add_tokens(backend, [roles[role] for role in known], special=True)
    set_frame(backend, TYPED_PAIR, roles)
    return _Built(backend, known)


def _bert_spelling(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token.removeprefix(SPACE_MARK) if token.startswith(SPACE_MARK) else f"##{token}"


BUILDERS: Final[Mapping[str, Callable[[_Keys], _Built]]] = MappingProxyType(
    {
        "gpt2": _build_byte_level,
        "llama": _build_sentence_pieces,
        "bert": _build_gguf_word_pieces,
    }
)


def _add_special_tokens(backend: Backend, keys: _Keys, roles: Mapping[str, int]) -> None:
    """Keep control and user-defined tokens whole; the former are special."""
    types: list[int] = keys.column("token_type") if keys.value("token_type", list) else []
    special = {number for number, kind in enumerate(types) if kind in (UNKNOWN, CONTROL)}
    special.update(roles.values())
    defined = [number for number, kind in enumerate(types) if kind == USER_DEFINED]
    tokens = keys.tokens
    add_tokens(backend, [tokens[number] for number in sorted(special)], special=True)
    plain = [tokens[number] for number in defined if number not in special]
    add_tokens(backend, plain, special=False)


def _add_frame(
    backend: Backend, keys: _Keys, roles: Mapping[str, int], *, bos: bool, eos: bool
) -> None:
    """Put bos before and eos after a text, where the file or else the default says so."""
    frame = bos_eos_frame(
        bos=_is_framed(keys, roles, "bos", bos), eos=_is_framed(keys, roles, "eos", eos)
    )
    set_frame(backend, frame, {role: keys.tokens[number] for role, number in roles.items()})


def _is_framed(keys: _Keys, roles: Mapping[str, int], role: str, default: bool) -> bool:
    wanted: bool = keys.value(f"add_{role}_token", bool, default)
    if wanted and role not in roles:
        raise TokenizationError(
            f"tokenizer.ggml.add_{role}_token is true, but there is no "
            f"tokenizer.ggml.{role}_token_id"
        )
    return wanted
