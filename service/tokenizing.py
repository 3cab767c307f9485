"""Texts, token ids and conversations of a request to the token ids that an engine takes.

Refuses what can't be meant before any work is done; leaves the model's room for a continuation
to the dialect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeGuard

from model_core.tokenization import ChatTemplateError, Pair, TokenizationError, Tokenizer
from service.errors import InvalidRequest, TooManyTokens
from service.messages import Inputs, ServedModel, TokenIds, Truncation
from service.offload import Offload

TextInput: TypeAlias = str | list[str] | list[int] | list[list[int]]

# About what a template writes around a message: without it a hundred thousand empty messages
# would count as nothing.
MESSAGE_OVERHEAD_BYTES = 16
MAX_PAIRS_BYTES = 4 * 1024**2
"""A text that is compared with many is read once for each of them."""


class Tokenizing:
    """Encodes requests off the event loop, unless the model's queue is full anyway (`Overloaded`).

    `max_bytes_per_token` times a model's tokens is the most bytes of a text that is looked at:
    tokenizers can be quadratic on pathological text. `max_inputs` bounds the items of a request.
    """

    def __init__(self, offload: Offload, *, max_bytes_per_token: int, max_inputs: int) -> None:
        self._offload = offload
        self._max_bytes_per_token = max_bytes_per_token
        self._max_inputs = max_inputs

    async def inputs(
        self,
        model: ServedModel,
        value: TextInput,
        *,
        field: str,
        truncation: Truncation = Truncation.ERROR,
        prompt: str | None = None,
    ) -> Inputs:
        """Token ids of each item: texts with the model's special tokens, token ids as they are.

        `prompt` goes before every text; None for the model's own. Each item is 1 to
        `card.max_input_tokens` long: longer ones are cut as `truncation` says. Raises
        `InvalidRequest` or `TooManyTokens`, whose field is that of the item at fault, such as
        `input[3]`.
        """
        prompt = model.card.prompt if prompt is None else prompt
        is_single = isinstance(value, str) or _is_ids(value)
        count = 1 if is_single else len(value)
        self.require_count(count, field=field)
        fields = [field] if is_single else [f"{field}[{item}]" for item in range(count)]
        if isinstance(value, str):
            return await self.texts(
                model, [value], fields=fields, truncation=truncation, prompt=prompt
            )
        if _is_texts(value):
            return await self.texts(
                model, value, fields=fields, truncation=truncation, prompt=prompt
            )
        encoded = _copy_ids(value)
        for ids, name in zip(encoded, fields, strict=True):
            require_known_ids(ids, model.tokenizer, field=name)
        return fitted(encoded, model, fields, truncation)

    def require_count(self, count: int, *, field: str) -> None:
        """Raises unless a request may have so many items in `field`."""
        if count > self._max_inputs:
            raise InvalidRequest(
                f"{field} has {count} items; at most {self._max_inputs} are accepted", field=field
            )

    async def texts(
        self,
        model: ServedModel,
        texts: Sequence[str],
        *,
        fields: Sequence[str],
        truncation: Truncation = Truncation.ERROR,
        prompt: str | None = None,
    ) -> Inputs:
        """Token ids of texts that come from several `fields`. Raises as `inputs` does.

        Whoever calls has checked how many they are.
        """
        prompt = model.card.prompt if prompt is None else prompt
        limit = self._max_bytes_per_token * model.card.max_input_tokens
        cut = [text if truncation is Truncation.ERROR else shortened(text, limit, truncation)
               for text in texts]  # fmt: skip
        encoded = await self._encode(model, cut, fields, prompt)
        found = fitted(encoded, model, fields, truncation)
        # What was not even read is dropped too, if nobody knows how many tokens it was.
        unread = [len(before) > len(after) for before, after in zip(texts, cut, strict=True)]
        dropped = [max(n, is_cut) for n, is_cut in zip(found.dropped, unread, strict=True)]
        return replace(found, dropped=dropped)

    async def pairs(
        self,
        model: ServedModel,
        texts: Sequence[tuple[str, str]],
        *,
        fields: Sequence[tuple[str, str]],
        truncation: Truncation = Truncation.ERROR,
    ) -> Inputs:
        """Token ids of pairs of texts, each in one sequence; `fields` name both in errors.

        Raises as `inputs` does. Whoever calls has checked how many they are.
        """
        if truncation is Truncation.LEFT:
            raise InvalidRequest(
                "truncation: pairs of texts are cut at their ends; accepted are right, error",
                field="truncation",
            )
        longest = self._max_bytes_per_token * model.card.max_input_tokens
        if truncation is Truncation.RIGHT:
            texts = [
                (shortened(first, longest, truncation), shortened(second, longest, truncation))
                for first, second in texts
            ]
        total = 0
        for pair, names in zip(texts, fields, strict=True):
            for text, field in zip(pair, names, strict=True):
                if not text:
                    raise InvalidRequest(f"{field} is empty; it needs a character", field=field)
                size = byte_count(text)
                if truncation is Truncation.ERROR:
                    self._require_size(size, model, field)
                total += size
        if total > MAX_PAIRS_BYTES:
            field = fields[-1][1].partition("[")[0]
            raise InvalidRequest(
                f"{field}: the pairs are {total} bytes together; at most {MAX_PAIRS_BYTES} are "
                "accepted in one request",
                field=field,
            )
        model.require_room(len(texts))
        limit = model.card.max_input_tokens
        cut_at = None if truncation is Truncation.ERROR else limit

        def encode() -> list[Pair]:
            encode_pair = model.tokenizer.encode_pair
            return [encode_pair(first, second, max_tokens=cut_at) for first, second in texts]

        try:
            found = await self._offload.run(total, encode)
        except TokenizationError as error:
            field = fields[0][1].partition("[")[0]
            raise InvalidRequest(f"{field}: {error}", field=field) from error
        for pair, names in zip(found, fields, strict=True):
            if len(pair.token_ids) > limit:
                raise TooManyTokens(
                    f"{' and '.join(names)} have {len(pair.token_ids)} tokens together; model "
                    f"{model.card.name!r} takes at most {limit}",
                    field=names[1],
                )
        return Inputs(
            [pair.token_ids for pair in found],
            [pair.dropped for pair in found],
            [pair.second_at for pair in found],
            [second for _, second in fields],
        )

    async def conversation(
        self, model: ServedModel, messages: Sequence[Mapping[str, object]], *, field: str
    ) -> TokenIds:
        """Token ids of a conversation in the model's own template, up to where it answers.

        `messages` have `role` and `content`. Raises `InvalidRequest` when the model has no
        template or the template refuses the conversation, and `TooManyTokens`.
        """
        tokenizer = model.tokenizer
        if tokenizer.chat_template is None:
            raise InvalidRequest(
                f"model {model.card.name!r} has no chat template; use /v1/completions",
                field="model",
            )
        size = sum(
            byte_count(str(message["content"])) + MESSAGE_OVERHEAD_BYTES for message in messages
        )
        self._require_size(size, model, field)
        model.require_room(1)

        def render_and_encode() -> TokenIds:
            # The template writes the special tokens itself.
            return tokenizer.encode(tokenizer.render_chat(messages), special_tokens=False)

        try:
            ids = await self._offload.run(size, render_and_encode)
        except (ChatTemplateError, TokenizationError) as error:
            raise InvalidRequest(f"{field}: {error}", field=field) from error
        require_length(ids, model, field=field)
        return ids

    async def _encode(
        self, model: ServedModel, texts: Sequence[str], fields: Sequence[str], prompt: str
    ) -> list[TokenIds]:
        total = 0
        for text, field in zip(texts, fields, strict=True):
            if not text:
                raise InvalidRequest(f"{field} is empty; it needs a character", field=field)
            size = byte_count(text)
            self._require_size(size, model, field)
            total += size
        model.require_room(len(texts))
        tokenizer = model.tokenizer
        texts = [prompt + text for text in texts] if prompt else texts
        try:
            if len(texts) == 1:
                return [await self._offload.run(total, tokenizer.encode, texts[0])]
            return await self._offload.run(total, tokenizer.encode_batch, texts)
        except TokenizationError as error:
            field = fields[0] if len(fields) == 1 else fields[0].partition("[")[0]
            raise InvalidRequest(f"{field}: {error}", field=field) from error

    def _require_size(self, size: int, model: ServedModel, field: str) -> None:
        tokens = model.card.max_input_tokens
        limit = self._max_bytes_per_token * tokens
        if size > limit:
            raise TooManyTokens(
                f"{field} is {size} bytes; model {model.card.name!r} takes {tokens} tokens, "
                f"and a text of more than {limit} bytes is not read",
                field=field,
            )


def shortened(text: str, bytes_: int, truncation: Truncation) -> str:
    """What is read of a text of which an end may be dropped: at most so many bytes."""
    if byte_count(text) <= bytes_:
        return text
    raw = text.encode()
    kept = raw[:bytes_] if truncation is Truncation.RIGHT else raw[-bytes_:]
    return kept.decode(errors="ignore")  # half a character at the cut


def fitted(
    encoded: Sequence[TokenIds], model: ServedModel, fields: Sequence[str], truncation: Truncation
) -> Inputs:
    """Items no longer than the model takes: cut as `truncation` says, or refused by name."""
    if truncation is Truncation.ERROR:
        for ids, field in zip(encoded, fields, strict=True):
            require_length(ids, model, field=field)
        return Inputs.whole(encoded, fields)
    for ids, field in zip(encoded, fields, strict=True):
        require_some(ids, field=field)
    limit, is_left = model.card.max_input_tokens, truncation is Truncation.LEFT
    cut = [model.tokenizer.cut(ids, limit, left=is_left) for ids in encoded]
    dropped = [len(a) - len(b) for a, b in zip(encoded, cut, strict=True)]
    return Inputs(cut, dropped, names=fields)


def byte_count(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def require_known_ids(ids: Sequence[int], tokenizer: Tokenizer, *, field: str) -> None:
    """Raises `InvalidRequest`, naming the first id that is outside the vocabulary."""
    for position, token_id in enumerate(ids):
        if not 0 <= token_id < tokenizer.vocab_size:
            raise InvalidRequest(
                f"{field}[{position}]: token id {token_id} is outside this model's vocabulary; "
                f"0 to {tokenizer.vocab_size - 1} are accepted",
                field=f"{field}[{position}]",
            )


def require_length(ids: Sequence[int], model: ServedModel, *, field: str) -> None:
    """Raises unless there are 1 to `card.max_input_tokens` ids; the message has both counts."""
    require_some(ids, field=field)
    if len(ids) > model.card.max_input_tokens:
        raise TooManyTokens(
            f"{field} has {len(ids)} tokens; model {model.card.name!r} takes at most "
            f"{model.card.max_input_tokens}",
            field=field,
        )


def require_some(ids: Sequence[int], *, field: str) -> None:
    """Raises unless there is one."""
    if not ids:
        raise InvalidRequest(f"{field} is empty; it needs a token at least", field=field)


def _is_texts(value: list[str] | list[int] | list[list[int]]) -> TypeGuard[list[str]]:
    return bool(value) and isinstance(value[0], str)


def _is_ids(value: TextInput) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)


def _copy_ids(value: list[str] | list[int] | list[list[int]]) -> list[TokenIds]:
    if _is_ids(value):
        return [value]
    return [item for item in value if isinstance(item, list)]
