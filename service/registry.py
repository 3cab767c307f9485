"""Which models are served: name to model, the default of each task, and whether all are ready."""

from collections.abc import Mapping
from typing import TypeVar

from service.errors import InspectionOff, NotReady, UnknownModel
from service.inspection.model import InspectedModel
from service.messages import (
    ClassificationModel,
    EmbeddingModel,
    GenerationModel,
    ModelCard,
    ServedModel,
    Task,
)

Model = TypeVar("Model", bound=ServedModel)


class Registry:
    """The served models. Whoever builds it adds them in order and then sets `ready`.

    The first model of a task is that task's default. Until `ready`, every look-up raises
    `NotReady`, so that a model that still loads isn't mistaken for one that doesn't exist.
    """

    def __init__(self) -> None:
        self.ready = False
        self._embedding: dict[str, EmbeddingModel] = {}
        self._classification: dict[str, ClassificationModel] = {}
        self._generation: dict[str, GenerationModel] = {}
        self._inspected: dict[str, InspectedModel] = {}

    def add_embedding(self, model: EmbeddingModel) -> None:
        """Serve an embedding model. Raises `ValueError` when its name is taken."""
        self._embedding[self._new_name(model)] = model

    def add_classification(self, model: ClassificationModel) -> None:
        """Serve a classification model. Raises `ValueError` when its name is taken."""
        self._classification[self._new_name(model)] = model

    def add_generation(self, model: GenerationModel) -> None:
        """Serve a generation model. Raises `ValueError` when its name is taken."""
        self._generation[self._new_name(model)] = model

    def add_inspected(self, model: InspectedModel) -> None:
        """Let a served model be looked into."""
        self._inspected[model.card.name] = model

    def embedding(self, name: str | None = None) -> EmbeddingModel:
        """The embedding model `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return self._find(self._embedding, Task.EMBED, name)

    def classification(self, name: str | None = None) -> ClassificationModel:
        """The classification model `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return self._find(self._classification, Task.CLASSIFY, name)

    def ranker(self, name: str | None = None) -> ServedModel:
        """What compares two texts: a classifier that ranks, or an embedding model.

        Without a name the first that ranks, or the default embedding model. Raises
        `UnknownModel`, `NotReady`.
        """
        self.require_ready()
        rankers = [model for model in self._classification.values() if model.card.ranks]
        if name is None:
            return rankers[0] if rankers else self.embedding()
        for model in rankers:
            if model.card.name == name:
                return model
        return self.embedding(name)

    def generation(self, name: str | None = None) -> GenerationModel:
        """The generation model `name`, or the default. Raises `UnknownModel`, `NotReady`."""
        return self._find(self._generation, Task.GENERATE, name)

    def inspection(self, name: str | None = None) -> InspectedModel:
        """What shows the inside of the model `name`, or of the first that is served.

        Raises `UnknownModel`, `NotReady`, `InspectionOff`.
        """
        card = self.first().card if name is None else self.card(name)
        if card.name not in self._inspected:
            raise InspectionOff(
                f"model {card.name!r} can't be looked into: inspection is switched off. Start the "
                "service with ANATOMY_INSPECT=true, or anatomy serve --inspect",
                field="model",
            )
        return self._inspected[card.name]

    def first(self) -> ServedModel:
        """The model that answers where a route names neither a model nor a task.

        Raises `UnknownModel`, `NotReady`.
        """
        self.require_ready()
        served = [
            *self._embedding.values(), *self._classification.values(), *self._generation.values()
        ]  # fmt: skip
        if not served:
            raise UnknownModel("no model is served", field="model")
        return served[0]

    def card(self, name: str) -> ModelCard:
        """The card of a model of any task. Raises `UnknownModel`, `NotReady`."""
        self.require_ready()
        for card in self.cards():
            if card.name == name:
                return card
        served = ", ".join(card.name for card in self.cards())
        raise UnknownModel(f"model {name!r} is not served; served: {served}", field="model")

    def cards(self) -> tuple[ModelCard, ...]:
        """The cards of all models, by task, in the order in which they were added."""
        served: tuple[Mapping[str, ServedModel], ...] = (
            self._embedding,
            self._classification,
            self._generation,
        )
        return tuple(model.card for models in served for model in models.values())

    def require_ready(self) -> None:
        """Raises `NotReady` unless every model can answer."""
        if not self.ready:
            raise NotReady("the service is starting or stopping: its models don't answer now")

    def _new_name(self, model: ServedModel) -> str:
        name = model.card.name
        if any(name == card.name for card in self.cards()):
            raise ValueError(f"two models are named {name!r}; each needs a name of its own")
        return name

    def _find(self, models: Mapping[str, Model], task: Task, name: str | None) -> Model:
        self.require_ready()
        if name is None:
            for model in models.values():
                return model
            raise UnknownModel(f"no model is served for the task {task}", field="model")
        if name in models:
            return models[name]
        other_task = next((card.task for card in self.cards() if card.name == name), None)
        found = "is not served" if other_task is None else f"is served for {other_task}, not {task}"
        served = ", ".join(models) or "none"
        raise UnknownModel(f"model {name!r} {found}; served for {task}: {served}", field="model")
