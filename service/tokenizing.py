"""Texts, token ids and conversations of a request to the token ids that an engine takes.

Refuses what can't be meant before any work is done; leaves the model's room for a continuation
to the dialect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from model_core.tokenization import ChatTemplateError, Pair, Span, TokenizationError
from service.chunks import Chunked, chunked, parts_of
from service.errors import InvalidRequest, TooManyTokens
from service.items import (
    TextInput,
    byte_count,
    fitted,
    is_ids,
    is_texts,
    lists_of_ids,
    require_known_ids,
    require_length,
    shortened,
)
from service.messages import Inputs, ServedModel, TokenIds, Truncation
from service.offload import Offload
from service.spans import SpannedTexts, cut_spans, moved

# About what a template writes around a message: without it a hundred thousand empty messages
# would count as nothing.
MESSAGE_OVERHEAD_BYTES = 16
MAX_PAIRS_BYTES = 4 * 1024**2
"""A text that is compared with many is read once for each of them."""


class Tokenizing:
    """Encodes requests off the event loop, unless the model's queue is full anyway (`Overloaded`).

    `max_bytes_per_token` times a model's tokens is the most bytes of a text that is looked at:
    tokenizers can be quadratic on pathological text. `max_inputs` bounds the items of a request,
    `max_tokens` those of a request whose texts are read in windows.
    """

    def __init__(
        self,
        offload: Offload,
        *,
        max_bytes_per_token: int,
        max_inputs: int,
        max_tokens: int = 2**16,
    ) -> None:
        self._offload = offload
        self._max_tokens = max_tokens
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
        is_single = isinstance(value, str) or is_ids(value)
        count = 1 if is_single else len(value)
        self.require_count(count, field=field)
        fields = [field] if is_single else [f"{field}[{item}]" for item in range(count)]
        if isinstance(value, str):
            return await self.texts(
                model, [value], fields=fields, truncation=truncation, prompt=prompt
            )
        if is_texts(value):
            return await self.texts(
                model, value, fields=fields, truncation=truncation, prompt=prompt
            )
        encoded = lists_of_ids(value)
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
        dropped = [max(n, int(is_cut)) for n, is_cut in zip(found.dropped, unread, strict=True)]
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

    async def spans(
        self,
        model: ServedModel,
        texts: Sequence[str],
        *,
        fields: Sequence[str],
        truncation: Truncation = Truncation.ERROR,
    ) -> SpannedTexts:
        """Token ids of texts, each token with its place. Raises as `inputs` does.

        Whoever calls has checked how many they are.
        """
        longest = self._max_bytes_per_token * model.card.max_input_tokens
        read = [text if truncation is Truncation.ERROR else shortened(text, longest, truncation)
                for text in texts]  # fmt: skip
        total = self._require_sizes(read, model, fields)
        model.require_room(len(texts))
        is_left = truncation is Truncation.LEFT

        def encode() -> list[list[Span]]:
            found: list[list[Span]] = []
            for text, cut in zip(texts, read, strict=True):
                # What was not read of the beginning still counts for where the rest stands.
                unread = len(text) - len(cut) if is_left else 0
                found.append([moved(span, unread) for span in model.tokenizer.spans(cut)])
            return found

        try:
            spans = await self._offload.run(total, encode)
        except TokenizationError as error:
            field = fields[0].partition("[")[0]
            raise InvalidRequest(f"{field}: {error}", field=field) from error
        if truncation is Truncation.ERROR:
            kept = spans
            for row, field in zip(spans, fields, strict=True):
                require_length([span.token_id for span in row], model, field=field)
        else:
            kept = [cut_spans(row, model.card.max_input_tokens, left=is_left) for row in spans]
        dropped = [
            max(len(whole) - len(part), int(len(text) > len(cut)))
            for whole, part, text, cut in zip(spans, kept, texts, read, strict=True)
        ]
        token_ids = [[span.token_id for span in row] for row in kept]
        return SpannedTexts(Inputs(token_ids, dropped, names=fields), kept)

    async def windows(
        self, model: ServedModel, value: TextInput, *, field: str, overlap: int
    ) -> Chunked:
        """Windows of each item, of `card.max_input_tokens` at most; nothing is dropped.

        Neighbours share `overlap` tokens; each has the model's special tokens, and its prompt.
        Raises as `inputs` does, and for more windows or tokens than a request may have.
        """
        is_single = isinstance(value, str) or is_ids(value)
        items: Sequence[str | TokenIds] = [value] if is_single else value  # pyright: ignore[reportAssignmentType]
        self.require_count(len(items), field=field)
        fields = [field] if is_single else [f"{field}[{place}]" for place in range(len(items))]
        prompt, tokenizer = model.card.prompt, model.tokenizer
        limit, longest = model.card.max_input_tokens, self._max_bytes_per_token * self._max_tokens
        total = 0
        for item, name in zip(items, fields, strict=True):
            if not item:
                raise InvalidRequest(f"{name} is empty; it needs a character", field=name)
            if not isinstance(item, str):
                require_known_ids(item, tokenizer, field=name)
            total += byte_count(item) if isinstance(item, str) else len(item)
        if total > longest:
            raise TooManyTokens(
                f"{field} has {total} bytes together; at most {longest} are read in windows",
                field=field,
            )

        model.require_room(len(items))

        def encode() -> Chunked:
            texts = [
                parts_of(tokenizer, item, prompt, self._max_tokens, field=name)
                for item, name in zip(items, fields, strict=True)
            ]
            room = min(limit - len(text.before) - len(text.behind) for text in texts)
            if overlap >= room:
                raise InvalidRequest(
                    f"chunk_overlap: {overlap} is not accepted; a window of model "
                    f"{model.card.name!r} has room for {room} tokens of the text, and goes on with "
                    "one at least",
                    field="chunk_overlap",
                )
            return chunked(texts, limit, overlap)

        try:
            found = await self._offload.run(total, encode)
        except TokenizationError as error:
            raise InvalidRequest(f"{field}: {error}", field=field) from error
        for count, most, what in (
            (len(found.windows), self._max_inputs, "windows"),
            (found.tokens, self._max_tokens, "tokens in its windows"),
        ):
            if count > most:
                raise TooManyTokens(
                    f"{field} has {count} {what}; at most {most} are accepted in one request",
                    field=field,
                )
        names = [name for name, count in zip(fields, found.chunks, strict=True)
                 for _ in range(count)]  # fmt: skip
        return replace(found, names=names)

    async def conversation(
        self,
        model: ServedModel,
        messages: Sequence[Mapping[str, object]],
        *,
        field: str,
        tools: Sequence[Mapping[str, object]] | None = None,
        more_bytes: int = 0,
    ) -> TokenIds:
        """Token ids of a conversation in the model's own template, up to where it answers.

        `messages` have `role` and `content`; `tools` are functions that the model may call. What
        there is beside contents is about `more_bytes`. Raises `InvalidRequest` when the model has
        no template or the template refuses the conversation, and `TooManyTokens`.
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
        size += more_bytes
        self._require_size(size, model, field)
        model.require_room(1)

        def render_and_encode() -> TokenIds:
            # The template writes the special tokens itself.
            return tokenizer.encode(
                tokenizer.render_chat(messages, tools=tools), special_tokens=False
            )

        try:
            ids = await self._offload.run(size, render_and_encode)
        except (ChatTemplateError, TokenizationError) as error:
            raise InvalidRequest(f"{field}: {error}", field=field) from error
        require_length(ids, model, field=field)
        return ids

    async def _encode(
        self, model: ServedModel, texts: Sequence[str], fields: Sequence[str], prompt: str
    ) -> list[TokenIds]:
        total = self._require_sizes(texts, model, fields)
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

    def _require_sizes(
        self, texts: Sequence[str], model: ServedModel, fields: Sequence[str]
    ) -> int:
        """The bytes of all texts, each of which is there and not too long to be read."""
        total = 0
        for text, field in zip(texts, fields, strict=True):
            if not text:
                raise InvalidRequest(f"{field} is empty; it needs a character", field=field)
            size = byte_count(text)
            self._require_size(size, model, field)
            total += size
        return total

    def _require_size(self, size: int, model: ServedModel, field: str) -> None:
        tokens = model.card.max_input_tokens
        limit = self._max_bytes_per_token * tokens
        if size > limit:
            raise TooManyTokens(
                f"{field} is {size} bytes; model {model.card.name!r} takes {tokens} tokens, "
                f"and a text of more than {limit} bytes is not read",
                field=field,
            )
