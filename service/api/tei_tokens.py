"""What text-embeddings-inference's routes ask of a tokenizer alone: tokens of texts, and back."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.exchange import answered, exchange_of
from service.api.responses import BYTES_PER_NUMBER, json_response
from service.api.tei_types import DecodeBody, TokenizeBody
from service.errors import InvalidRequest
from service.items import byte_count, require_known_ids
from service.messages import ServedModel
from service.offload import Offload
from service.registry import Registry
from service.tokenizing import Tokenizing

MOST_TOKENS = 2**18
"""Of a request that is only tokenized, or decoded."""


@dataclass(frozen=True, slots=True)
class TeiTokens:
    """Handlers of `/tokenize` and `/decode`."""

    registry: Registry
    tokenizing: Tokenizing
    offload: Offload
    limits: bodies.BodyLimits

    async def tokenize(self, request: Request) -> Response:
        """`POST /tokenize`: the tokens of each text, with their places in it."""
        body = await bodies.read(request, TokenizeBody, self.limits)
        served = self.registry.first()
        exchange_of(request.scope).model = served.card.name
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        prompt = prompt_of(served, body.prompt_name)

        self.tokenizing.require_count(len(texts), field="inputs")
        # A token has a byte at least.
        require_at_most(sum(map(byte_count, texts)), "bytes", field="inputs")

        def spans() -> Response:
            return json_response(
                [
                    [
                        {
                            "id": span.token_id,
                            "text": span.text,
                            "special": span.special,
                            "start": span.start,
                            "stop": span.stop,
                        }
                        for span in served.tokenizer.spans(
                            prompt + text, special_tokens=body.add_special_tokens
                        )
                    ]
                    for text in texts
                ]
            )

        return await answered(request, self.offload.run(sum(map(byte_count, texts)), spans))

    async def decode(self, request: Request) -> Response:
        """`POST /decode`: the text of each list of token ids."""
        body = await bodies.read(request, DecodeBody, self.limits)
        served = self.registry.first()
        exchange_of(request.scope).model = served.card.name
        lists = [ids for ids in body.ids if isinstance(ids, list)]
        alone = [number for number in body.ids if isinstance(number, int)]
        fields = [f"ids[{place}]" for place in range(len(lists))] or ["ids"]
        lists = lists or [alone]
        self.tokenizing.require_count(len(lists), field="ids")
        count = sum(map(len, lists))
        require_at_most(count, "ids", field="ids")

        def decode() -> Response:
            for ids, name in zip(lists, fields, strict=True):
                require_known_ids(ids, served.tokenizer, field=name)
            skip = body.skip_special_tokens
            return json_response(
                [served.tokenizer.decode(ids, skip_special_tokens=skip) for ids in lists]
            )

        return await answered(request, self.offload.run(count * BYTES_PER_NUMBER, decode))


def require_at_most(count: int, what: str, *, field: str) -> None:
    """Raises unless a request that only the tokenizer answers may have so many."""
    if count > MOST_TOKENS:
        raise InvalidRequest(
            f"{field} has {count} {what}; at most {MOST_TOKENS} are accepted in one request",
            field=field,
        )


def prompt_of(model: ServedModel, name: str | None) -> str:
    """The prompt of that name; the model's own for None. Raises `InvalidRequest`."""
    card = model.card
    if name is None:
        return card.prompt
    if name not in card.prompts:
        accepted = ", ".join(sorted(card.prompts)) or "none, the model has no prompts"
        raise InvalidRequest(
            f"prompt_name: {name[:60]!r} is not accepted; accepted: {accepted}",
            field="prompt_name",
        )
    return card.prompts[name]
