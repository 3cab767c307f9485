"""From token ids back to text: whole, one token alone, and as a stream.

Two ways, by what a vocabulary's tokens are. In byte vocabularies (byte-level BPE, byte fallback)
every token stands for bytes, and a text is their concatenation: exact, and a stream holds back
nothing but an incomplete character. Elsewhere (WordPiece, Unigram) how a token reads depends on
the one before, and the `tokenizers` library decides.
"""

import codecs
import json
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

from tokenizers import Tokenizer as Backend

SPACE_MARK: Final = "▁"
BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> Mapping[str, int]:
    """GPT-2's spelling of bytes: printable ones as themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    spelled = {chr(byte): byte for byte in printable}
    spelled.update({chr(0x100 + number): byte for number, byte in enumerate(others)})
    return MappingProxyType(spelled)


BYTE_ALPHABET: Final = _byte_alphabet()


class DecodeStream(Protocol):
    """Tokens in, text out, as soon as it is final.

    The texts of all `push`es and of `flush` together are the text of all tokens together.
    Special tokens have no text, but for those that a stream shows. The cost of a push doesn't grow
    with the tokens before it.
    """

    def push(self, token_id: int) -> str:
        """The text that is final now; empty while a character is incomplete."""
        ...

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that stayed incomplete."""
        ...


class Detokenizer(Protocol):
    """How a vocabulary's token ids become text. Ids without a token have no text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of a sequence of tokens."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token."""
        ...

    def token_text(self, token_id: int) -> str:
        """One token as text."""
        ...

    def stream(self, after: Sequence[int], shown: Collection[int]) -> DecodeStream:
        """A new stream, continuing the text of `after`; at the beginning where that is empty.

        Special tokens that are `shown` have their text, as any other.
        """
        ...


def detokenizer_of(backend: Backend) -> Detokenizer:
    """The way that fits the decoder of `backend`."""
    steps = _decoder_steps(backend)
    added = {number: token.content for number, token in backend.get_added_tokens_decoder().items()}
    special = frozenset(
        number for number, token in backend.get_added_tokens_decoder().items() if token.special
    )
    kinds = {step["type"] for step in steps}
    if kinds == {"ByteLevel"}:
        return _ByteDetokenizer(_ByteLevelSpelling(backend, added), special, strips_space=False)
    if "ByteFallback" in kinds and all(_is_sentence_piece(step) for step in steps):
        strips = any(_strips_space(step) for step in steps)
        return _ByteDetokenizer(_FallbackSpelling(backend, added), special, strips_space=strips)
    return _ChainDetokenizer(backend, special, space=SPACE_MARK if "Metaspace" in kinds else " ")


def _decoder_steps(backend: Backend) -> list[Mapping[str, Any]]:
    if backend.decoder is None:
        return []
    decoder: dict[str, Any] = json.loads(backend.decoder.__getstate__())
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _is_sentence_piece(step: Mapping[str, Any]) -> bool:
    """Whether a decoding step is one that concatenating bytes comes to as well."""
    if step["type"] == "Replace":
        return (step["pattern"], step["content"]) == ({"String": SPACE_MARK}, " ")
    if step["type"] == "Strip":
        return (step["content"], step["start"], step["stop"]) == (" ", 1, 0)
    return step["type"] in ("ByteFallback", "Fuse", "Metaspace")


def _strips_space(step: Mapping[str, Any]) -> bool:
    is_prefix = step["type"] == "Metaspace" and step.get("prepend_scheme") != "never"
    return step["type"] == "Strip" or is_prefix


class _Spelling(Protocol):
    def token_bytes(self, token_id: int) -> bytes: ...


class _ByteLevelSpelling:
    """Byte-level BPE (Radford et al. 2019): each character of a token is a byte."""

    def __init__(self, backend: Backend, added: Mapping[int, str]) -> None:
        self.backend = backend
        self.added = added

    def token_bytes(self, token_id: int) -> bytes:
        # Added tokens are written as they are, not in the alphabet.
        if token_id in self.added:
            return self.added[token_id].encode()
        token = _token(self.backend, token_id)
        try:
            return bytes([BYTE_ALPHABET[character] for character in token])
        except KeyError:
            return token.encode()


class _FallbackSpelling:
    """SentencePiece with byte fallback: pieces with a mark for the space, and bytes as <0xE2>."""

    def __init__(self, backend: Backend, added: Mapping[int, str]) -> None:
        self.backend = backend
        self.added = added

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self.added:
            return self.added[token_id].encode()
        token = _token(self.backend, token_id)
        byte = BYTE_TOKEN.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else token.replace(SPACE_MARK, " ").encode()


def _token(backend: Backend, token_id: int) -> str:
    # A model's output is often wider than its vocabulary: such ids have no text.
    return (backend.id_to_token(token_id) if token_id >= 0 else None) or ""


class _ByteDetokenizer:
    """Concatenates bytes; what isn't UTF-8 becomes U+FFFD."""

    def __init__(self, spelling: _Spelling, special: frozenset[int], *, strips_space: bool) -> None:
        self.spelling = spelling
        self.special = special
        self.strips_space = strips_space

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        data = b"".join(
            self.spelling.token_bytes(token_id)
            for token_id in token_ids
            if not (skip_special_tokens and token_id in self.special)
        )
        text = data.decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips_space else text

    def token_bytes(self, token_id: int) -> bytes:
        return self.spelling.token_bytes(token_id)

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def stream(self, after: Sequence[int], shown: Collection[int]) -> DecodeStream:
        is_beginning = self.special.issuperset(after)
        strips_space = self.strips_space and is_beginning
        return _ByteStream(self, self.special.difference(shown), strips_space=strips_space)


class _ByteStream:
    def __init__(
        self, detokenizer: _ByteDetokenizer, silent: Collection[int], *, strips_space: bool
    ) -> None:
        self.detokenizer = detokenizer
        self.silent = silent
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.strips_space = strips_space

    def push(self, token_id: int) -> str:
        if token_id in self.silent:
            return ""
        return self._strip(self.decoder.decode(self.detokenizer.token_bytes(token_id)))

    def flush(self) -> str:
        return self._strip(self.decoder.decode(b"", final=True))

    def _strip(self, text: str) -> str:
        if not (self.strips_space and text):
            return text
        self.strips_space = False
        return text.removeprefix(" ")


class _ChainDetokenizer:
    """Leaves decoding to the library's decoder."""

    def __init__(self, backend: Backend, special: frozenset[int], *, space: str) -> None:
        self.backend = backend
        self.special = special
        self.space = space

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        known = [number for number in token_ids if number >= 0]
        return self.backend.decode(known, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        return self.token_text(token_id).encode()

    def token_text(self, token_id: int) -> str:
        return _token(self.backend, token_id).replace(self.space, " ")

    def stream(self, after: Sequence[int], shown: Collection[int]) -> DecodeStream:
        return _ChainStream(self, after, self.special.difference(shown))


class _ChainStream:
    """Decodes each token after the one before it, and gives what it adds."""

    def __init__(
        self, detokenizer: _ChainDetokenizer, after: Sequence[int], silent: Collection[int]
    ) -> None:
        self.detokenizer = detokenizer
        self.silent = silent
        self.last = [number for number in after if self._has_text(number)][-1:]

    def push(self, token_id: int) -> str:
        if not self._has_text(token_id):
            return ""
        # None of these is silent: what is special among them is shown.
        both = self.detokenizer.decode([*self.last, token_id], skip_special_tokens=False)
        before = self.detokenizer.decode(self.last, skip_special_tokens=False)
        self.last = [token_id]
        return both[len(before) :]

    def flush(self) -> str:
        return ""

    def _has_text(self, token_id: int) -> bool:
        return token_id not in self.silent and bool(_token(self.detokenizer.backend, token_id))
