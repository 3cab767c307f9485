"""Which models are served: name to model, the default of each task, and whether all are ready.

What is served may change while requests look for it: each change puts a whole new table into the
old one's place, in one step, so that a look-up finds what was or what is, and nothing between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from service.errors import InspectionOff, NotReady, UnknownModel
from service.in_flight import InFlight
from service.inspection.model import InspectedModel
from service.messages import (
    ClassificationModel,
    EmbeddingModel,
    GenerationModel,
    ModelCard,
    ServedModel,
    Task,
    TokenClassificationModel,
)


@dataclass(frozen=True, slots=True)
class Table:
    """The served models by task and name. Never changed: another takes its place."""

    by_task: Mapping[Task, Mapping[str, ServedModel]]

    @classmethod
    def of(cls, models: Sequence[ServedModel]) -> "Table":
        """A table of `models`, in their order. Raises `ValueError` for a name that comes twice."""
        by_task: dict[Task, dict[str, ServedModel]] = {task: {} for task in Task}
        for model in models:
            name = model.card.name
            if any(name in named for named in by_task.values()):
                raise ValueError(f"two models are named {name!r}; each needs a name of its own")
            by_task[model.card.task][name] = model
        return cls(by_task)

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """All of them, by task."""
        return tuple(model for named in self.by_task.values() for model in named.values())


def nowhere(name: str) -> None:
    """Where models are served where there is no other group."""
    del name


class Registry:
    """The served models. Whoever builds it adds them in order and then sets `ready`.

    The first model of a task is that task's default. Until `ready`, every look-up raises
    `NotReady`, so that a model that still loads isn't mistaken for one that doesn't exist; later
    that is said of the names in `loading` alone. `elsewhere` gives the route prefix of a model that
    another group serves. `in_flight` counts the requests that may hold a model.
    """

    def __init__(self) -> None:
        self.ready = False
        self.loading: frozenset[str] = frozenset()
        self.elsewhere: Callable[[str], str | None] = nowhere
        self.in_flight = InFlight()
        self._table = Table.of(())
        self._inspected: Mapping[str, InspectedModel] = {}

    def add_embedding(self, model: EmbeddingModel) -> None:
        """Serve an embedding model. Raises `ValueError` when its name is taken."""
        self.serve([*self._table.models, model])

    def add_classification(self, model: ClassificationModel) -> None:
        """Serve a classification model. Raises `ValueError` when its name is taken."""
        self.serve([*self._table.models, model])

    def add_token_classification(self, model: TokenClassificationModel) -> None:
        """Serve a model that labels tokens. Raises `ValueError` when its name is taken."""
        self.serve([*self._table.models, model])

    def add_generation(self, model: GenerationModel) -> None:
        """Serve a generation model. Raises `ValueError` when its name is taken."""
        self.serve([*self._table.models, model])

    def serve(
        self, models: Sequence[ServedModel], inspected: Sequence[InspectedModel] = ()
    ) -> None:
        """Serve these and no others, from one look-up to the next; `inspected` of them may be
        looked into.

        Raises `ValueError` when two have one name; then nothing has changed.
        """
        self._table = Table.of(models)
        self._inspected = {model.card.name: model for model in inspected}

    def embedding(self, name: str | None = None) -> EmbeddingModel:
        """The embedding model `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return cast(EmbeddingModel, self._find(Task.EMBED, name))

    def classification(self, name: str | None = None) -> ClassificationModel:
        """The classification model `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return cast(ClassificationModel, self._find(Task.CLASSIFY, name))

    def token_classification(self, name: str | None = None) -> TokenClassificationModel:
        """What labels tokens: `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return cast(TokenClassificationModel, self._find(Task.CLASSIFY_TOKENS, name))

    def classifier(self, name: str | None = None) -> ServedModel:
        """What labels texts, or their tokens where that is all that there is or that is named.

        Raises `UnknownModel`, `NotReady`.
        """
        self.require_ready()
        by_task = self._table.by_task
        of_tokens, of_texts = by_task[Task.CLASSIFY_TOKENS], by_task[Task.CLASSIFY]
        if name in of_tokens or (name is None and of_tokens and not of_texts):
            return self.token_classification(name)
        return self.classification(name)

    def ranker(self, name: str | None = None) -> ServedModel:
        """What compares two texts: a classifier that ranks, or an embedding model.

        Without a name the first that ranks, or the default embedding model. Raises
        `UnknownModel`, `NotReady`.
        """
        self.require_ready()
        rankers = [
            model for model in self._table.by_task[Task.CLASSIFY].values() if model.card.ranks
        ]
        if name is None:
            return rankers[0] if rankers else self.embedding()
        for model in rankers:
            if model.card.name == name:
                return model
        return self.embedding(name)

    def generation(self, name: str | None = None) -> GenerationModel:
        """The generation model `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return cast(GenerationModel, self._find(Task.GENERATE, name))

    def inspection(self, name: str | None = None) -> InspectedModel:
        """What shows the inside of the model `name`, or of the first that is served.

        Raises `UnknownModel`, `NotReady`, `InspectionOff`.
        """
        card = self.first().card if name is None else self.card(name)
        found = self._inspected.get(card.name)
        if found is None:
            raise InspectionOff(
                f"model {card.name!r} can't be looked into: inspection is switched off. Start the "
                "service with ANATOMY_INSPECT=true, or anatomy serve --inspect",
                field="model",
            )
        return found

    def first(self) -> ServedModel:
        """The model that answers where a route names neither a model nor a task.

        Raises `UnknownModel`, `NotReady`.
        """
        self.require_ready()
        served = self._table.models
        if not served:
            raise UnknownModel("no model is served", field="model")
        return served[0]

    def card(self, name: str) -> ModelCard:
        """The card of a model of any task. Raises `UnknownModel`, `NotReady`."""
        self.require_ready()
        cards = self.cards()
        for card in cards:
            if card.name == name:
                return card
        self._require_here(name)
        served = ", ".join(card.name for card in cards)
        raise UnknownModel(f"model {name!r} is not served; served: {served}", field="model")

    def cards(self) -> tuple[ModelCard, ...]:
        """The cards of all models, by task, in the order in which they were added."""
        return tuple(model.card for model in self._table.models)

    def require_ready(self) -> None:
        """Raises `NotReady` unless every model can answer."""
        if not self.ready:
            raise NotReady("the service is starting or stopping: its models don't answer now")

    def _find(self, task: Task, name: str | None) -> ServedModel:
        self.require_ready()
        models = self._table.by_task[task]
        if name is None:
            for model in models.values():
                return model
            served = ", ".join(f"{card.name} ({card.task})" for card in self.cards()) or "none"
            raise UnknownModel(
                f"no model is served for the task {task}; served: {served}", field="model"
            )
        if name in models:
            return models[name]
        other_task = next((card.task for card in self.cards() if card.name == name), None)
        if other_task is None:
            self._require_here(name)
        found = "is not served" if other_task is None else f"is served for {other_task}, not {task}"
        served = ", ".join(models) or "none"
        raise UnknownModel(f"model {name!r} {found}; served for {task}: {served}", field="model")

    def _require_here(self, name: str) -> None:
        """Raises with what is known of a model that isn't served here, if anything is."""
        if name in self.loading:
            raise NotReady(f"model {name!r} is being loaded; it doesn't answer yet")
        prefix = self.elsewhere(name)
        if prefix is not None:
            raise UnknownModel(
                f"model {name!r} is not served here; it is served under {prefix}, such as "
                f"{prefix.rstrip('/')}/v1/models",
                field="model",
            )
