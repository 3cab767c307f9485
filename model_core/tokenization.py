"""Tokenization: text to token ids and back, chats to text. Runs without torch.

What the other floors use; reading vocabularies is left to `vocabularies.py` and
`gguf_vocabularies.py`, decoding to `detokenization.py`, rendering chats to `chat_template.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from model_core.chat_template import ChatTemplate, ChatTemplateError
from model_core.detokenization import DecodeStream, detokenizer_of
from model_core.gguf_vocabularies import build_gguf_vocabulary
from model_core.vocabularies import (
    SpecialTokens,
    TokenizationError,
    Vocabulary,
    read_template,
    read_vocabulary,
)

__all__ = ["ChatTemplateError", "DecodeStream", "TokenizationError", "Tokenizer"]

BACKEND_FILE: Final = "tokenizer.json"
OPTIONS_FILE: Final = "tokenizer_options.json"
TEMPLATE_FILE: Final = "chat_template.jinja"


def _local_now() -> datetime:
    return datetime.now().astimezone()


class Tokenizer:
    """A vocabulary in use. Never pads and never truncates, whatever its files say.

    Immutable, so that any number of threads may use one; encoding leaves Python's lock.
    `vocab_size` counts added tokens too. `eos_ids` are all tokens that end a generation.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._backend = vocabulary.backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self._special = vocabulary.special
        self._detokenizer = detokenizer_of(self._backend)
        self._special_ids = frozenset(
            number
            for number, token in self._backend.get_added_tokens_decoder().items()
            if token.special
        )
        self.vocab_size: int = self._backend.get_vocab_size(with_added_tokens=True)
        self.bos_id: int | None = vocabulary.special.bos_id
        self.eos_ids: frozenset[int] = vocabulary.special.eos_ids
        self.pad_id: int | None = vocabulary.special.pad_id
        self.chat_template: str | None = vocabulary.chat_template

    @classmethod
    def from_files(cls, files: Mapping[str, Path]) -> "Tokenizer":
        """From the Hugging Face layout: tokenizer.json, else BERT's vocab.txt.

        `files` are paths by name. Raises `TokenizationError` naming the file that is wrong.
        """
        return cls(read_vocabulary(files))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object]) -> "Tokenizer":
        """From the metadata of a GGUF file.

        Raises `TokenizationError` naming the key that is wrong, or the model or pre-tokenizer
        that isn't known.
        """
        return cls(build_gguf_vocabulary(metadata))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """What `save` wrote. Raises `TokenizationError` naming the file that is wrong."""
        try:
            backend = Backend.from_file(str(folder / BACKEND_FILE))
        except Exception as error:  # the library raises nothing narrower
            raise TokenizationError(f"{folder / BACKEND_FILE} can't be read: {error}") from error
        try:
            text = (folder / OPTIONS_FILE).read_text(encoding="utf-8")
            options: dict[str, Any] = json.loads(text)
            special = SpecialTokens(
                bos_id=options["bos_id"],
                eos_ids=frozenset(options["eos_ids"]),
                pad_id=options["pad_id"],
                texts=options["special_tokens"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenizationError(f"{folder / OPTIONS_FILE} can't be read: {error!r}") from error
        template = folder / TEMPLATE_FILE
        chat_template = read_template(template) if template.is_file() else None
        return cls(Vocabulary(backend, special, chat_template))

    def save(self, folder: Path) -> list[str]:
        """Write into an existing `folder` all that `load` needs; returns the files' names."""
        options = {
            "bos_id": self.bos_id,
            "eos_ids": sorted(self.eos_ids),
            "pad_id": self.pad_id,
            "special_tokens": dict(self._special.texts),
        }
        texts = {
            BACKEND_FILE: self._backend.to_str(),
            OPTIONS_FILE: json.dumps(options, indent=1, ensure_ascii=False) + "\n",
        }
        if self.chat_template is not None:
            texts[TEMPLATE_FILE] = self.chat_template
        for name, text in texts.items():
            # newline="": a template's line ends are part of it.
            (folder / name).write_text(text, encoding="utf-8", newline="")
        return list(texts)

    def encode(
        self, text: str, *, special_tokens: bool = True, parse_special: bool = True
    ) -> list[int]:
        """The token ids of `text`.

        `special_tokens` adds those of the vocabulary's frame ([CLS] … [SEP], bos). Special tokens
        written out in the text count as such unless `parse_special` is false. Raises
        `TokenizationError` naming the position of a lone surrogate.
        """
        backend = self._backend if parse_special else self._literal_backend
        return backend.encode(_checked(text), add_special_tokens=special_tokens).ids

    def encode_batch(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[list[int]]:
        """The token ids of each text; equal to encoding them one by one, on several cores."""
        checked = [_checked(text) for text in texts]
        encodings: list[Encoding] = self._backend.encode_batch_fast(
            checked, add_special_tokens=special_tokens
        )
        return [encoding.ids for encoding in encodings]

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """The token ids of two texts in one sequence, and their token type ids (0, then 1)."""
        encoding = self._backend.encode(_checked(first), _checked(second))
        return encoding.ids, encoding.type_ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`; bytes that aren't UTF-8 become U+FFFD, unknown ids nothing."""
        return self._detokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """One token as text; U+FFFD where it holds part of a character."""
        return self._detokenizer.token_text(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """One token's bytes: exact for byte vocabularies, else its text in UTF-8."""
        return self._detokenizer.token_bytes(token_id)

    def is_special(self, token_id: int) -> bool:
        """Whether a token is a control token, with no text of its own in an answer."""
        return token_id in self._special_ids

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        now: Callable[[], datetime] = _local_now,
    ) -> str:
        """The prompt for `messages` by the model's chat template.

        Encode it with `special_tokens=False`: templates write bos themselves. `now` is the clock
        for templates that write the date. Raises `ChatTemplateError`: no template, an invalid
        one, messages it refuses, or more text than is sensible.
        """
        if self._template is None:
            raise ChatTemplateError("this model has no chat template; use completions instead")
        return self._template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, now=now
        )

    def stream(self, *, after: Sequence[int] = ()) -> DecodeStream:
        """Incremental decoding of one answer, special tokens skipped.

        `after` are tokens that the answer continues and whose text isn't repeated: in some
        vocabularies a first word loses its space where nothing precedes it.
        """
        return self._detokenizer.stream(after)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        if self.chat_template is None:
            return None
        return ChatTemplate(self.chat_template, self._special.texts)

    @cached_property
    def _literal_backend(self) -> Backend:
        # The switch belongs to the library's tokenizer, not to a call: two of them keep calls
        # from different threads apart.
        backend = Backend.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend


def _checked(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizationError(
            f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at position "
            f"{error.start}, which is no character"
        ) from error
    return text
