"""What a generation looks like in OpenAI's answers: choices, their deltas, log probabilities."""

from collections.abc import Iterator, Sequence
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

    It goes on from `prompt`. `prefix` is put before the text (`echo`), and `echoed`, its tokens,
    before the log probabilities where they are wanted.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        *,
        wants_logprobs: bool,
        prompt: Sequence[int] = (),
        prefix: str = "",
        echoed: Sequence[int] = (),
    ) -> None:
        self._index = index
        self._prefix = prefix
        self._first = echoed[:1]
        self._logprobs: CompletionLogprobs | None = None
        if wants_logprobs:
            echo = Echo(tokenizer, prefix, echoed)
            self._logprobs = CompletionLogprobs(tokenizer, echo, after=prompt)

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
    """The `logprobs` block of completions, whose offsets run over all chunks of a choice.

    The first items are those of `echo`; what follows goes on from the tokens `after`.
    """

    def __init__(self, tokenizer: Tokenizer, echo: "Echo", *, after: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._echoed = iter(echo.offsets())
        self._offset = echo.length
        # A character may be spread over tokens: it counts where its last byte is.
        self._stream = tokenizer.stream(after=after)

    def block(self, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        """`tokens`, `token_logprobs`, `top_logprobs` and `text_offset` (characters) of `items`."""
        offsets: list[int] = []
        for item in items:
            echoed = next(self._echoed, None)
            offsets.append(self._offset if echoed is None else echoed)
            if echoed is None:
                self._offset += len(self._stream.push(item.token_id))
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


class Echo:
    """Tokens of a prompt, and where they stand in the `text` that is echoed of them."""

    def __init__(self, tokenizer: Tokenizer, text: str, token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._token_ids = token_ids
        self.length = len(text)

    def offsets(self) -> Iterator[int]:
        """Where each token begins, in characters.

        Those that frame the text have no part of it. Special tokens that stand written in it have;
        what is echoed of token ids leaves them out.
        """
        tokenizer, token_ids = self._tokenizer, self._token_ids
        before, behind = tokenizer.frame_of(token_ids)
        own = range(before, len(token_ids) - behind)
        special = {token_ids[at] for at in own if tokenizer.is_special(token_ids[at])}
        is_written = bool(special) and len(tokenizer.decode(token_ids)) < self.length
        stream = tokenizer.stream(shown=special if is_written else ())
        offset = 0
        for place, token_id in enumerate(token_ids):
            yield min(offset, self.length)
            if place in own:
                offset += len(stream.push(token_id))


def token_name(raw: bytes) -> str:
    """A token as text; one that is part of a character as `bytes:\\xe2\\x82`, like OpenAI's."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _value(reason: FinishReason | None) -> str | None:
    return None if reason is None else reason.value
