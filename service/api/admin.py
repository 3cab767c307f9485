"""Loading, unloading and swapping models while they are served. For holders of admin keys.

The routes exist only where there is a file of admin keys. A change is refused whole, and what was
served is served still, or it holds in every replica when the answer comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.api import bodies
from service.api.answers.admin import State
from service.api.described import READS_BODY, DescribedRoute, Description, get, post
from service.api.responses import json_response
from service.errors import Conflict, InvalidRequest, NotReady, UnknownModel, UnusableModel
from service.living import Control, told_of
from service.specs import ModelSpec, Wanted


class ModelBody(ModelSpec, bodies.RequestBody):
    """A model to load, or to swap another for."""


class SwapBody(ModelBody):
    """A model to swap another for."""

    allow_loss: bool = Field(
        False, description="Swap even if names are then served no more, or have another task."
    )


@dataclass(frozen=True, slots=True)
class Admin:
    """Handlers of the routes that change which models are served."""

    control: Control
    limits: bodies.BodyLimits

    def routes(self) -> list[DescribedRoute]:
        """The routes of admins."""
        group, one = "Administration", "/admin/models/{name:path}"
        changes = (Conflict, NotReady, UnusableModel)
        swaps = Description(group, State, SwapBody, (*READS_BODY, UnknownModel, *changes))
        unloads = Description(group, State, raises=(UnknownModel, *changes))
        return [
            get("/admin/models", self.models, group=group, answer=State, raises=(NotReady,)),
            post(
                "/admin/models",
                self.load,
                group=group,
                body=ModelBody,
                answer=State,
                raises=changes,
            ),
            DescribedRoute("PUT", one, self.swap, swaps),
            DescribedRoute("DELETE", one, self.unload, unloads),
        ]

    async def models(self, request: Request) -> Response:
        """`GET /admin/models`: what is served, and what each replica says of it."""
        del request
        return await self._state()

    async def load(self, request: Request) -> Response:
        """`POST /admin/models`: serve one more. 409 if its name is taken."""
        body = await bodies.read(request, ModelBody, self.limits)
        spec, wanted = spec_of(body), self.control.wanted
        if any(spec.label in self._names(served) for served in wanted):
            raise Conflict(
                f"a model {spec.label!r} is served already; PUT /admin/models/{spec.label} swaps "
                "it, or give this one another name",
                field="name",
            )
        await self.control.change(wanted, (*wanted, spec))
        return await self._state()

    async def swap(self, request: Request) -> Response:
        """`PUT /admin/models/{name}`: serve another in the place of one, under its name. 409 if a
        name would vanish or change its task, unless the request allows it."""
        base = self.control.wanted
        place = self._place(base, request.path_params["name"])
        body = await bodies.read(request, SwapBody, self.limits)
        spec, wanted = spec_of(body), list(base)
        if spec.name is None:
            spec = spec.model_copy(update={"name": self._names(base[place])[0]})
        wanted[place] = spec
        await self.control.change(base, tuple(wanted), keep=not body.allow_loss)
        return await self._state()

    async def unload(self, request: Request) -> Response:
        """`DELETE /admin/models/{name}`: serve one less; the last one stays."""
        base = self.control.wanted
        place = self._place(base, request.path_params["name"])
        if len(base) == 1:
            raise Conflict("it is the only model; a service without one would not answer anything")
        await self.control.change(base, (*base[:place], *base[place + 1 :]))
        return await self._state()

    def _place(self, wanted: Wanted, name: str) -> int:
        """Where the model `name` is, by its own name or by one that it is served as."""
        for place, spec in enumerate(wanted):
            if name in self._names(spec):
                return place
        known = ", ".join(self._names(spec)[0] for spec in wanted)
        raise UnknownModel(f"model {name!r} is not served; served: {known}", field="name")

    def _names(self, spec: ModelSpec) -> Sequence[str]:
        """What a model is served as, its own name first."""
        return self.control.names().get(spec) or (spec.label,)

    async def _state(self) -> Response:
        models = [
            {**told_of(spec), "name": self._names(spec)[0], "serves": self._names(spec)}
            for spec in self.control.wanted
        ]
        return json_response({"models": models, "replicas": await self.control.replicas()})


def spec_of(body: ModelBody) -> ModelSpec:
    """The model that a request asks for."""
    try:
        return ModelSpec.model_validate(body.model_dump(include=set(ModelSpec.model_fields)))
    except ValidationError as error:
        raise InvalidRequest(str(error)) from error
