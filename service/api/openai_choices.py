"""What a generation looks like in OpenAI's answers: choices, their deltas, log probabilities."""

import codecs
from collections.abc import Sequence
from typing import Any, Protocol

from model_core.tokenization import Tokenizer
from service.messages import FinishReason, GenerationChunk, TokenLogprob


class Choice(Protocol):
    """One continuation in the making: give it chunks as they come, or all of them as one."""

    def deltas(self, chunk: GenerationChunk) -> list[dict[str, Any]]:
        """The choices to stream for `chunk`, each in an event of its own."""
        ...

    def whole(self, chunk: GenerationChunk) -> dict[str, Any]:
        """The choice of an answer in one piece; `chunk` is everything that was generated."""
        ...


class CompletionChoice:
    """A choice of `/v1/completions`.

    `prefix` is put before the text (`echo`), and `echoed`, its tokens, before the log probabilities
    where they are wanted.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        *,
        wants_logprobs: bool,
        prefix: str = "",
        echoed: Sequence[int] = (),
    ) -> None:
        self._index = index
        self._prefix = prefix
        self._first = echoed[:1]
        self._logprobs = CompletionLogprobs(tokenizer) if wants_logprobs else None

    def deltas(self, chunk: GenerationChunk) -> list[dict[str, Any]]:
        """The text that `chunk` adds; nothing while a character or a stop string is open."""
        has_news = self._prefix or chunk.text or chunk.finish_reason is not None
        if not has_news and not (self._logprobs and chunk.logprobs):
            return []
        return [self.whole(chunk)]

    def whole(self, chunk: GenerationChunk) -> dict[str, Any]:
        """The text of `chunk`, after the prefix if this is the first."""
        prefix, self._prefix = self._prefix, ""
        first, self._first = self._first, ()
        # Nothing stands before a prompt's first token, so that it has no probability.
        items = [
            *(TokenLogprob(token_id, None) for token_id in first),
            *chunk.prompt_logprobs,
            *chunk.logprobs,
        ]
        return {
            "index": self._index,
            "text": prefix + chunk.text,
            "logprobs": self._logprobs.block(items) if self._logprobs else None,
            "finish_reason": _value(chunk.finish_reason),
        }


class ChatChoice:
    """A choice of `/v1/chat/completions`."""

    def __init__(self, index: int, tokenizer: Tokenizer, *, wants_logprobs: bool) -> None:
        self._index = index
        self._tokenizer = tokenizer
        self._wants_logprobs = wants_logprobs
        self._has_begun = False

    def deltas(self, chunk: GenerationChunk) -> list[dict[str, Any]]:
        """The role first, then text, then an empty delta with the reason of the end."""
        found = self.opening("")
        if chunk.text or (self._wants_logprobs and chunk.logprobs):
            found.append(self._delta({"content": chunk.text}, self._logprobs(chunk)))
        if chunk.finish_reason is not None:
            found.append(self._delta({}, finish_reason=chunk.finish_reason.value))
        return found

    def opening(self, content: str | None) -> list[dict[str, Any]]:
        """The delta that a stream begins with, once."""
        if self._has_begun:
            return []
        self._has_begun = True
        return [self._delta({"role": "assistant", "content": content})]

    def whole(self, chunk: GenerationChunk) -> dict[str, Any]:
        """The message of a whole answer."""
        return {
            "index": self._index,
            "message": {"role": "assistant", "content": chunk.text, "refusal": None},
            "logprobs": self._logprobs(chunk),
            "finish_reason": _value(chunk.finish_reason),
        }

    def _delta(
        self,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        return {
            "index": self._index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _logprobs(self, chunk: GenerationChunk) -> dict[str, Any] | None:
        if not self._wants_logprobs:
            return None
        return {"content": [self._token(item) for item in chunk.logprobs], "refusal": None}

    def _token(self, item: TokenLogprob) -> dict[str, Any]:
        top = [self._row(token_id, logprob) for token_id, logprob in item.top]
        return {**self._row(item.token_id, item.logprob), "top_logprobs": top}

    def _row(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        raw = self._tokenizer.token_bytes(token_id)
        return {"token": token_name(raw), "logprob": logprob, "bytes": list(raw)}


class CompletionLogprobs:
    """The `logprobs` block of completions, whose offsets run over all chunks of a choice."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0
        # A character may be spread over tokens: it counts where its last byte is.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def block(self, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        """`tokens`, `token_logprobs`, `top_logprobs` and `text_offset` (characters) of `items`."""
        offsets: list[int] = []
        for item in items:
            offsets.append(self._offset)
            if self._tokenizer.is_special(item.token_id):
                continue  # it has no text of its own
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(item.token_id)))
        return {
            "tokens": [self._name(item.token_id) for item in items],
            "token_logprobs": [item.logprob for item in items],
            "top_logprobs": [None if item.logprob is None else self._top(item) for item in items],
            "text_offset": offsets,
        }

    def _top(self, item: TokenLogprob) -> dict[str, float | None]:
        # The chosen token is always among them, as in OpenAI's answers.
        return {
            self._name(token_id): logprob
            for token_id, logprob in (*item.top, (item.token_id, item.logprob))
        }

    def _name(self, token_id: int) -> str:
        return token_name(self._tokenizer.token_bytes(token_id))


def token_name(raw: bytes) -> str:
    """A token as text; one that is part of a character as `bytes:\\xe2\\x82`, like OpenAI's."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _value(reason: FinishReason | None) -> str | None:
    return None if reason is None else reason.value
