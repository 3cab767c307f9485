"""Texts, token ids and conversations of a request to the token ids that an engine takes.

Refuses what can't be meant before any work is done; leaves the model's room for a continuation
to the dialect.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeGuard

from model_core.tokenization import ChatTemplateError, TokenizationError, Tokenizer
from service.errors import InvalidRequest, TooManyTokens
from service.messages import ServedModel, TokenIds
from service.offload import Offload

TextInput: TypeAlias = str | list[str] | list[int] | list[list[int]]

# About what a template writes around a message: without it a hundred thousand empty messages
# would count as nothing.
MESSAGE_OVERHEAD_BYTES = 16


class Tokenizing:
    """Encodes requests off the event loop.

    `max_bytes_per_token` times a model's tokens is the most bytes of a text that is looked at:
    tokenizers can be quadratic on pathological text. `max_inputs` bounds the items of a request.
    """

    def __init__(self, offload: Offload, *, max_bytes_per_token: int, max_inputs: int) -> None:
        self._offload = offload
        self._max_bytes_per_token = max_bytes_per_token
        self._max_inputs = max_inputs

    async def inputs(self, model: ServedModel, value: TextInput, *, field: str) -> list[TokenIds]:
        """Token ids of each item: texts with the model's special tokens, token ids as they are.

        Each is 1 to `card.max_input_tokens` long. Raises `InvalidRequest` or `TooManyTokens`, whose
        field is that of the item at fault, such as `input[3]`.
        """
        is_single = isinstance(value, str) or _is_ids(value)
        count = 1 if is_single else len(value)
        if count > self._max_inputs:
            raise InvalidRequest(
                f"{field} has {count} items; at most {self._max_inputs} are accepted", field=field
            )
        fields = [field] if is_single else [f"{field}[{item}]" for item in range(count)]
        if isinstance(value, str):
            encoded = await self._encode(model, [value], fields)
        elif _is_texts(value):
            encoded = await self._encode(model, value, fields)
        else:
            encoded = _copy_ids(value)
            for ids, name in zip(encoded, fields, strict=True):
                require_known_ids(ids, model.tokenizer, field=name)
        for ids, name in zip(encoded, fields, strict=True):
            require_length(ids, model, field=name)
        return encoded

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
        self, model: ServedModel, texts: Sequence[str], fields: Sequence[str]
    ) -> list[TokenIds]:
        total = 0
        for text, field in zip(texts, fields, strict=True):
            if not text:
                raise InvalidRequest(f"{field} is empty; it needs a character", field=field)
            size = byte_count(text)
            self._require_size(size, model, field)
            total += size
        tokenizer, prompt = model.tokenizer, model.card.prompt
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
    if not ids:
        raise InvalidRequest(f"{field} is empty; it needs a token at least", field=field)
    if len(ids) > model.card.max_input_tokens:
        raise TooManyTokens(
            f"{field} has {len(ids)} tokens; model {model.card.name!r} takes at most "
            f"{model.card.max_input_tokens}",
            field=field,
        )


def _is_texts(value: list[str] | list[int] | list[list[int]]) -> TypeGuard[list[str]]:
    return bool(value) and isinstance(value[0], str)


def _is_ids(value: TextInput) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)


def _copy_ids(value: list[str] | list[int] | list[list[int]]) -> list[TokenIds]:
    if _is_ids(value):
        return [value]
    return [item for item in value if isinstance(item, list)]
