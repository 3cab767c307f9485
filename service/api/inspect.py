"""`POST /v1/inspect`: what goes on inside a served model while it reads a text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.answers.inspection import InspectionAnswer
from service.api.described import COMPUTES, DescribedRoute, post
from service.api.exchange import answered, exchange_of
from service.api.openai_types import STOP_AT_FIRST, ModelName
from service.errors import InspectionOff
from service.inspection.desk import InspectionDesk
from service.inspection.encoding import BINARY, NumberType, as_json, as_safetensors
from service.inspection.inquiry import DEFAULT_TOP, Inquiry, Part
from service.inspection.sequences import TextLimits
from service.registry import Registry

MOST_NUMBERS_JSON = 2**21
"""In an answer in JSON: about 25 MB."""
MOST_NUMBERS = 2**25
"""In a binary answer: 64 MB as float16."""
MOST_CHOSEN = 4096

Numbers = Annotated[list[Annotated[int, Field(ge=0)]], STOP_AT_FIRST]


class InspectBody(bodies.RequestBody):
    """`POST /v1/inspect`. Without a model, the first that is served answers."""

    model: ModelName | None = None
    text: str = Field(description="The text, a prompt, or the source of an encoder-decoder.")
    second: str | None = Field(
        None,
        description="Another text: to compare with (embeddings), the second of a pair "
        "(classification), the continuation of the prompt, or the target (encoder-decoders).",
    )
    include: Annotated[list[Part], STOP_AT_FIRST] = Field(
        [Part.PATTERN],
        min_length=1,
        max_length=len(Part),
        description="What the answer has.",
    )
    layers: Numbers | None = Field(
        None, min_length=1, max_length=MOST_CHOSEN, description="Which layers; all without it."
    )
    heads: Numbers | None = Field(
        None, min_length=1, max_length=MOST_CHOSEN, description="Which query heads; all without it."
    )
    positions: Numbers | None = Field(
        None,
        min_length=1,
        max_length=MOST_CHOSEN,
        description="After which tokens the next is asked for; without it the last for "
        "next_tokens, all for logit_lens.",
    )
    top: int = Field(DEFAULT_TOP, ge=1, le=256, description="How many tokens each position gets.")
    continuation: Numbers = Field(
        [],
        max_length=MOST_CHOSEN,
        description="Token ids that follow all else, as a generation wrote them one by one.",
    )
    label: str | None = Field(
        None, max_length=1024, description="The class that attributions explain; the likeliest."
    )
    number_type: NumberType | None = Field(
        None,
        description="Of a binary answer (accept: application/octet-stream): float16 without it; "
        "uint8 is for patterns.",
    )


@dataclass(frozen=True, slots=True)
class Inspect:
    """Handler of the route. `desk` is where inspections run."""

    registry: Registry
    desk: InspectionDesk
    limits: bodies.BodyLimits
    texts: TextLimits

    def routes(self) -> list[DescribedRoute]:
        """The route that this dialect answers."""
        return [
            post(
                "/v1/inspect",
                self.inspect,
                group="Inspection",
                body=InspectBody,
                answer=InspectionAnswer,
                raises=(*COMPUTES, InspectionOff),
                example={"text": "time flies like an arrow", "layers": [0], "heads": [0]},
            )
        ]

    async def inspect(self, request: Request) -> Response:
        """The answer as JSON, or as safetensors to whoever accepts `application/octet-stream`."""
        body = await bodies.read(request, InspectBody, self.limits)
        exchange = exchange_of(request.scope)
        model = self.registry.inspection(body.model)
        exchange.model = model.card.name
        is_binary = wants_binary(request)
        inquiry = Inquiry(
            text=body.text,
            second=body.second,
            include=tuple(dict.fromkeys(body.include)),
            layers=None if body.layers is None else tuple(body.layers),
            heads=None if body.heads is None else tuple(body.heads),
            positions=None if body.positions is None else tuple(body.positions),
            top=body.top,
            continuation=tuple(body.continuation),
            label=body.label,
        )

        def look(wanted: Callable[[], bool]) -> bytes:
            most = MOST_NUMBERS if is_binary else MOST_NUMBERS_JSON
            seen = model.look(inquiry, self.texts, most, wanted)
            if is_binary:
                return as_safetensors(seen, body.number_type or NumberType.FLOAT16)
            return as_json(seen)

        with exchange.timed("run"):
            content = await answered(request, self.desk.run(look))
        return Response(content, media_type=BINARY if is_binary else "application/json")


def wants_binary(request: Request) -> bool:
    """Whether the client names the binary type, and not JSON too."""
    ranges = request.headers.get("accept", "").lower().split(",")
    accepted = [media_range.partition(";")[0].strip() for media_range in ranges]
    return BINARY in accepted and "application/json" not in accepted
