"""Tokenization: text to token ids and back, chats to text. Runs without torch.

What the other floors use; reading vocabularies is left to `huggingface_vocabularies.py`,
`gguf_vocabularies.py` and `saved_vocabularies.py`, decoding to `detokenization.py`, rendering chats
to `chat_template.py`.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Encoding, normalizers
from tokenizers import Tokenizer as Backend

from model_core.chat_template import ChatTemplate, ChatTemplateError
from model_core.detokenization import DecodeStream, detokenizer_of
from model_core.gguf_vocabularies import build_gguf_vocabulary
from model_core.huggingface_vocabularies import read_vocabulary
from model_core.saved_vocabularies import load_vocabulary, save_vocabulary
from model_core.token_spans import Span
from model_core.truncation import Pair, cut, cut_pair, frame_around
from model_core.vocabularies import (
    Marker,
    TokenizationError,
    Vocabulary,
)

__all__ = ["ChatTemplateError", "DecodeStream", "Pair", "Span", "TokenizationError", "Tokenizer"]


def _local_now() -> datetime:
    return datetime.now().astimezone()


class Tokenizer:
    """A vocabulary in use. Never pads and never truncates, whatever its files say.

    Immutable, so that any number of threads may use one; encoding leaves Python's lock.
    `vocab_size` counts added tokens too. `eos_ids` are all tokens that end a generation.

    A translation model's languages are `language_ids`, token ids by code (empty for any other
    model). `source_language` is the one that texts count as unless `encode` is told otherwise.
    Where `begins_with_language`, the first token of an answer has to be its language's id; other
    models read the wanted language at the beginning of the text, where `encode` puts it.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._backend = vocabulary.backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self._vocabulary = vocabulary
        answers = vocabulary.target or vocabulary.backend
        self._detokenizer = detokenizer_of(answers)
        self._special_ids = frozenset(
            number for number, token in answers.get_added_tokens_decoder().items() if token.special
        )
        listed, languages = vocabulary.listed, vocabulary.languages
        whole = self._backend.get_vocab_size(with_added_tokens=True)
        self.vocab_size: int = whole if listed is None else listed.begin
        self.language_ids: Mapping[str, int] = {} if languages is None else languages.ids
        self.source_language: str | None = None if languages is None else languages.source
        self.begins_with_language: bool = (
            languages is not None and languages.marker is not Marker.TARGET_FIRST
        )
        self.bos_id: int | None = vocabulary.special.bos_id
        self.eos_ids: frozenset[int] = vocabulary.special.eos_ids
        self.pad_id: int | None = vocabulary.special.pad_id
        self.chat_template: str | None = vocabulary.chat_template

    @classmethod
    def from_files(cls, files: Mapping[str, Path]) -> "Tokenizer":
        """From the Hugging Face layout: tokenizer.json, else the older files of a known class.

        `files` are paths by name. Raises `TokenizationError` naming the file that is wrong, or
        the class that isn't known.
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
        return cls(load_vocabulary(folder))

    def save(self, folder: Path) -> list[str]:
        """Write into an existing `folder` all that `load` needs; returns the files' names."""
        return save_vocabulary(self._vocabulary, folder)

    def lowercased(self) -> "Tokenizer":
        """One that makes a text lowercase before anything else."""
        backend = Backend.from_str(self._backend.to_str())
        lowercase = normalizers.Lowercase()
        inner = backend.normalizer
        backend.normalizer = (
            lowercase if inner is None else normalizers.Sequence([lowercase, inner])
        )
        return Tokenizer(replace(self._vocabulary, backend=backend))

    def encode(
        self,
        text: str,
        *,
        special_tokens: bool = True,
        parse_special: bool = True,
        language: str | None = None,
    ) -> list[int]:
        """The token ids of `text`.

        `special_tokens` adds those of the vocabulary's frame ([CLS] … [SEP], bos). Special tokens
        written out in the text count as such unless `parse_special` is false. `language` is the
        code that a translation model marks the text with: the text's own, or the one wanted where
        the model reads that (see the class). Raises `TokenizationError` naming the position of a
        lone surrogate, or a language that there isn't.
        """
        backend = self._backend if parse_special else self._literal_backend
        encoding = backend.encode(_checked(text), add_special_tokens=special_tokens)
        return self._mark(self._ids(encoding), language if special_tokens else None)

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        special_tokens: bool = True,
        language: str | None = None,
    ) -> list[list[int]]:
        """The token ids of each text; equal to encoding them one by one, on several cores."""
        checked = [_checked(text) for text in texts]
        # The fast one leaves out the tokens' texts.
        is_listed = self._vocabulary.listed is not None
        encode = self._backend.encode_batch if is_listed else self._backend.encode_batch_fast
        encodings: list[Encoding] = encode(checked, add_special_tokens=special_tokens)
        language = language if special_tokens else None
        return [self._mark(self._ids(encoding), language) for encoding in encodings]

    def encode_pair(self, first: str, second: str, *, max_tokens: int | None = None) -> Pair:
        """Two texts in one sequence, as the vocabulary frames a pair.

        With `max_tokens`, tokens are dropped at the end of whichever text is longer, one by one.
        """
        encoding = self._backend.encode(_checked(first), _checked(second))
        return cut_pair(self._ids(encoding), encoding.type_ids, encoding.sequence_ids, max_tokens)

    def cut(self, token_ids: Sequence[int], tokens: int, *, left: bool = False) -> list[int]:
        """At most `tokens` of what `encode` gave, by dropping from its end or its beginning.

        What frames every text ([CLS] … [SEP], bos) is kept.
        """
        return cut(token_ids, tokens, self._frame, left=left)

    def frame_of(self, token_ids: Sequence[int]) -> tuple[int, int]:
        """How many tokens before and behind a text are not its own, in what `encode` gave."""
        return frame_around(list(token_ids), self._frame)

    def spans(self, text: str, *, special_tokens: bool = True) -> list[Span]:
        """The tokens of `text`, each with its part of it and its place."""
        encoding = self._backend.encode(_checked(text), add_special_tokens=special_tokens)
        ids, framing = self._ids(encoding), encoding.special_tokens_mask
        rows = zip(ids, encoding.tokens, framing, encoding.offsets, strict=True)
        return [
            Span(token_id, token, True, None, None)
            if is_frame
            else Span(
                token_id,
                text[start:stop],
                self.is_special(token_id),
                start,
                stop,
                self._continues(token_id, token, text, start, stop),
            )
            for token_id, token, is_frame, (start, stop) in rows
        ]

    def pair_spans(self, first: str, second: str) -> list[Span]:
        """The tokens of a pair, as `encode_pair` has it, each with its place in its own text."""
        encoding, texts = self._backend.encode(_checked(first), _checked(second)), (first, second)
        rows = zip(
            self._ids(encoding),
            encoding.tokens,
            encoding.sequence_ids,
            encoding.offsets,
            strict=True,
        )
        return [
            Span(token_id, token, True, None, None)
            if text is None
            else Span(token_id, texts[text][start:stop], self.is_special(token_id), start, stop)
            for token_id, token, text, (start, stop) in rows
        ]

    def target_spans(self, text: str) -> list[Span]:
        """The tokens of a text that a model would write, in the vocabulary of its answers.

        Where that is one of its own, pieces that it cuts but has no embedding for have ids beyond
        the model's.
        """
        target = self._vocabulary.target
        if target is None:
            return self.spans(text, special_tokens=False)
        encoding = target.encode(_checked(text), add_special_tokens=False)
        rows = zip(encoding.ids, encoding.offsets, strict=True)
        return [
            Span(token_id, text[start:stop], self.is_special(token_id), start, stop)
            for token_id, (start, stop) in rows
        ]

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

    def role_id(self, role: str) -> int | None:
        """The token of a role as the ecosystem names it ("mask", "sep"), if there is one."""
        text = self._vocabulary.special.texts.get(f"{role}_token")
        return None if text is None else self._backend.token_to_id(text)

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

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the chat template shows a model the functions that it may call.

        Raises `ChatTemplateError` for a template that isn't valid.
        """
        return self._template is not None and self._template.takes_tools

    def stream(self, *, after: Sequence[int] = (), shown: Collection[int] = ()) -> DecodeStream:
        """Incremental decoding of one answer, special tokens skipped but for those `shown`.

        `after` are tokens that the answer continues and whose text isn't repeated: in some
        vocabularies a first word loses its space where nothing precedes it.
        """
        return self._detokenizer.stream(after, shown)

    def _continues(self, token_id: int, token: str, text: str, start: int, stop: int) -> bool:
        """Whether a token goes on with a word, as transformers' pipelines see it."""
        if token_id == self._unknown_id:
            return False
        if self._marks_continuations:
            return len(token) != stop - start
        # Elsewhere words are what stands between spaces.
        return start > 0 and " " not in text[start - 1 : start + 1]

    @cached_property
    def _marks_continuations(self) -> bool:
        return bool(getattr(self._backend.model, "continuing_subword_prefix", None))

    @cached_property
    def _unknown_id(self) -> int | None:
        unknown = self._vocabulary.special.texts.get("unk_token")
        return None if unknown is None else self._backend.token_to_id(unknown)

    @cached_property
    def _frame(self) -> list[int]:
        return self.encode("")

    def _ids(self, encoding: Encoding) -> list[int]:
        listed = self._vocabulary.listed
        if listed is None:
            return encoding.ids
        ids: list[int] = []
        for token_id, token in zip(encoding.ids, encoding.tokens, strict=True):
            # Of what it doesn't know Unigram says the text; BPE says but that it doesn't.
            is_unknown = token_id == listed.unk_id
            found = self._backend.token_to_id(f" {token}") if is_unknown else token_id
            ids.append(listed.unk_id if found is None or found >= listed.begin else found)
        return ids

    def _mark(self, ids: list[int], language: str | None) -> list[int]:
        languages = self._vocabulary.languages
        if language is None:
            return ids
        if languages is None or language not in languages.ids:
            accepted = ", ".join(self.language_ids) or "none, the model has no languages"
            raise TokenizationError(f"language is {language!r}; accepted: {accepted}")
        token_id = languages.ids[language]
        match languages.marker:
            case Marker.SOURCE_FIRST:
                return [token_id, *ids[1:]]
            case Marker.SOURCE_LAST:
                return [*ids[:-1], token_id]
            case Marker.TARGET_FIRST:
                return [token_id, *ids]

    @cached_property
    def _template(self) -> ChatTemplate | None:
        if self.chat_template is None:
            return None
        return ChatTemplate(self.chat_template, self._vocabulary.special.texts)

    @cached_property
    def _literal_backend(self) -> Backend:
        # The switch belongs to the library's tokenizer, not to a call: two of them keep calls
        # from different threads apart.
        state: dict[str, Any] = json.loads(self._backend.to_str())
        if state["model"]["type"] == "Unigram":
            # Unigram cuts text into any token that it finds there, special ones too: behind a
            # space, which is a mark by then, they aren't found.
            special = {token["id"] for token in state["added_tokens"] if token["special"]}
            for number in special.intersection(range(len(state["model"]["vocab"]))):
                entry = state["model"]["vocab"][number]
                entry[0] = f" {entry[0]}"
            state["added_tokens"] = [t for t in state["added_tokens"] if not t["special"]]
        backend = Backend.from_str(json.dumps(state))
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
