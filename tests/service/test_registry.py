import pytest

from service.errors import NotReady, UnknownModel
from service.registry import Registry
from tests.support.fakes import (
    FakeClassificationModel,
    FakeEmbeddingModel,
    FakeGenerationModel,
    FakeRanker,
)


def ready_registry(*names: str) -> Registry:
    registry = Registry()
    for name in names:
        registry.add_embedding(FakeEmbeddingModel(name))
    registry.ready = True
    return registry


def test_the_first_model_of_a_task_is_its_default() -> None:
    registry = ready_registry("one", "two")
    assert registry.embedding().card.name == "one"
    assert registry.embedding("two").card.name == "two"


def test_an_unknown_name_is_told_with_the_names_that_are_served() -> None:
    with pytest.raises(UnknownModel, match=r"'three' is not served; .*embed: one, two") as caught:
        ready_registry("one", "two").embedding("three")
    assert caught.value.field == "model"


def test_a_model_of_another_task_is_told_apart() -> None:
    registry = ready_registry("one")
    registry.add_generation(FakeGenerationModel("writer"))
    with pytest.raises(UnknownModel, match="served for generate, not embed"):
        registry.embedding("writer")


def test_what_ranks_comes_before_what_embeds() -> None:
    registry = ready_registry("one", "two")
    registry.add_classification(FakeClassificationModel())
    assert registry.ranker().card.name == "one"
    assert registry.ranker("two").card.name == "two"
    registry.add_classification(FakeRanker())
    assert registry.ranker().card.name == "ranker"
    with pytest.raises(UnknownModel, match="'classifier' is served for classify, not embed"):
        registry.ranker("classifier")


def test_a_task_without_models_has_no_default() -> None:
    with pytest.raises(UnknownModel, match="no model is served for the task classify"):
        ready_registry("one").classification()


def test_two_models_of_one_name_are_refused_whatever_their_tasks() -> None:
    registry = ready_registry("one")
    with pytest.raises(ValueError, match="'one'"):
        registry.add_classification(FakeClassificationModel("one"))


def test_nothing_is_found_before_all_is_ready() -> None:
    registry = ready_registry("one")
    registry.ready = False
    with pytest.raises(NotReady):
        registry.embedding("one")
    assert [card.name for card in registry.cards()] == ["one"]
