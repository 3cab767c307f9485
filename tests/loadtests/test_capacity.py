"""Knees, the formula, and the page; and that docs, overlays and formula have the same numbers."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.capacity import growth as growing
from loadtests.capacity import knee as bending
from loadtests.capacity import replicas as replicating
from loadtests.capacity.formula import NoKnee, Targets, replicas_for, targets_of
from loadtests.capacity.growth import Growth, Point
from loadtests.capacity.knee import Knee, Step
from loadtests.capacity.replicas import Replicas
from loadtests.capacity.report import page_text, write_report
from loadtests.gauges import RUNNING, WAITING, WAITING_TEXTS
from loadtests.machine import this_machine
from loadtests.report.figures import task_figures
from loadtests.rows import Row
from loadtests.service_process import Running
from loadtests.slos import Slos
from loadtests.tasks import EMBEDDINGS
from service.groups import Group
from service.scaling import wanted_replicas
from service.serve_config import arguments
from tests.support.documents import ROOT
from tests.support.fakes import FakeEmbeddingModel
from tests.support.servers import running
from tests.support.service import served

FIGURES = ROOT / "docs" / "benchmarks" / "capacity"
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
SLOS = Slos.model_validate(
    {"slos": {"embeddings": {"end_to_end_ms": 100}}, "thresholds": {"good_share": 0.9}}
)


def step(rate: float, good: int, *, texts: float = 0, ran: float = 0, waited: float = 0) -> Step:
    """Of a hundred requests ten times `good` were quick enough."""
    rows = [
        Row("embeddings", i / 1000, 0.0, 0.05 if i < good * 10 else 0.5, 200) for i in range(100)
    ]
    queue = {WAITING_TEXTS: texts, RUNNING: ran, WAITING: waited}
    return Step(rate, task_figures("embeddings", rows, SLOS, 1.0), 1.0, queue)


def knee(task: str, *steps: Step) -> Knee:
    return Knee(this_machine(), task, "a model", "serve", {"end_to_end_ms": 100.0}, 0.9, 100.0, 1.0,
                steps)  # fmt: skip


def knees() -> dict[str, Knee]:
    return {
        "embeddings": knee("embeddings", step(50, 10), step(80, 9, texts=12.4), step(90, 3)),
        "classification": knee("classification", step(60, 10, texts=7.6), step(70, 8)),
        "chat": knee("chat", step(1, 10, ran=2), step(2, 10, ran=4.3, waited=1.2), step(3, 0)),
    }


def test_the_knee_is_the_last_load_before_one_that_breaks_the_slo() -> None:
    at = knees()["embeddings"].at
    assert at is not None
    assert at.rate == 80
    # One that comes out well beyond a break is chance.
    lucky = knee("embeddings", step(50, 10), step(80, 5), step(90, 10)).at
    assert lucky is not None
    assert lucky.rate == 50
    assert knee("embeddings", step(50, 5)).at is None


async def test_a_load_that_misses_is_offered_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the better; a load that is hopeless twice is the last."""
    good = iter([10, 6, 10, 10, 5, 4, 2, 1])
    offered: list[tuple[float, int]] = []

    async def offer_it(
        service: object, requests: object, rate: float, slos: Slos, seconds: float, seed: int
    ) -> Step:
        del service, requests, slos, seconds
        offered.append((rate, seed))
        return step(rate, next(good))

    monkeypatch.setattr(bending, "_step", offer_it)
    service: Any = None
    found = await bending._steps(service, [], 100.0, SLOS, 1.0)
    rates = [factor * 100.0 for factor in bending.FACTORS]
    assert [one.rate for one in found] == rates[:5]
    assert [one.figures.good for one in found] == [100, 100, 100, 50, 20]
    assert [rate for rate, _ in offered] == [
        rates[0], rates[1], rates[1], rates[2], rates[3], rates[3], rates[4], rates[4],
    ]  # fmt: skip
    assert len({seed for _, seed in offered}) == len(offered)
    at = knee("embeddings", *found).at
    assert at is not None
    assert at.rate == rates[2]


def test_one_miss_of_a_few_may_be_chance() -> None:
    assert bending.most_plausible(6, 7) > 0.95 > bending.most_plausible(60, 70)
    assert bending.most_plausible(0, 0) == 1.0
    # Wilson's interval of 81 of 263: 0.255 to 0.366 (Newcombe 1998, table I).
    assert bending.most_plausible(81, 263) == pytest.approx(0.3662, abs=5e-4)


def test_targets_are_what_was_at_hand_at_the_knees() -> None:
    found = targets_of(knees())
    assert found == Targets(texts=8, generations=6, waiting_generations=1)
    with pytest.raises(NoKnee, match="chat: fewer than 90%"):
        targets_of({**knees(), "chat": knee("chat", step(1, 0))})


def test_replicas_are_planned_below_the_knee() -> None:
    assert [replicas_for(rate, 100.0) for rate in (0, 70, 71, 700)] == [1, 1, 2, 10]


def test_a_service_is_offered_more_and_more() -> None:
    model = FakeEmbeddingModel("minilm", max_tokens=1000)
    with running(served(embedder=model)) as url:
        service = Running(int(url.rpartition(":")[2]))
        slos = Slos.model_validate({"thresholds": {"good_share": 0.1}})
        found = bending.measure(
            service, EMBEDDINGS, "embedder", slos, seconds=0.3, settings="fake",
        )  # fmt: skip
    rates = [one.rate for one in found.steps]
    assert rates == sorted(rates)
    assert rates == [found.closed_rate * factor for factor in bending.FACTORS[: len(rates)]]
    assert found.at is not None
    assert found.at.figures.answered == found.at.figures.asked > 0
    assert found.at.queue.keys() == {WAITING_TEXTS, RUNNING, WAITING}


def test_figures_are_read_as_they_were_written_and_make_a_page(tmp_path: Path) -> None:
    for each in knees().values():
        bending.write(each, tmp_path)
    points = (Point(1, {"texts/s": 10.0, "ms a request": 5.0}), Point(2, {"texts/s": 15.0, "ms a request": 7.0}))  # noqa: E501  # fmt: skip
    growing.write(Growth(this_machine(), "batch", "Texts", "texts", "minilm", points), tmp_path)
    replicating.write(Replicas(this_machine(), "minilm", {1: (10.0, 12.0), 2: (18.0, 24.0)}), tmp_path)  # noqa: E501  # fmt: skip
    assert bending.read_all(tmp_path) == knees()
    page = write_report(tmp_path, tmp_path).read_text()
    assert "Two do 1.90 times" in page
    for image in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (tmp_path / image).is_file()


def test_texts_have_the_tokens_that_they_are_said_to_have() -> None:
    assert len(growing.text_of(8).split()) == 8 - growing.SPECIAL_TOKENS


# What was measured, what is written, and what is deployed


@pytest.fixture(scope="module")
def targets() -> Targets:
    return targets_of(bending.read_all(FIGURES))


def groups_of(overlay: str) -> dict[str, Group]:
    """The groups of an overlay's Serve configuration, by their name."""
    patches: list[dict[str, Any]] = yaml.safe_load(
        (OVERLAYS / overlay / "rayservice.yaml").read_text()
    )
    (config,) = [patch["value"] for patch in patches if patch["path"] == "/spec/serveConfigV2"]
    applications = yaml.safe_load(config)["applications"]
    groups = [arguments(application["args"])[1] for application in applications]
    return {group.name: group for group in groups}


def target_queue(group: Group) -> float:
    assert group.autoscaling is not None
    return group.autoscaling.target_queue


def test_the_overlays_scale_by_the_targets_of_the_figures(targets: Targets) -> None:
    (both,) = groups_of("autoscaled").values()
    assert target_queue(both) == targets.generations
    split = groups_of("split")
    assert target_queue(split["encoders"]) == targets.texts
    assert target_queue(split["generators"]) == targets.generations
    scaler = yaml.safe_load((OVERLAYS / "plain" / "horizontalpodautoscaler.yaml").read_text())
    told = {
        metric["pods"]["metric"]["name"]: float(metric["pods"]["target"]["averageValue"])
        for metric in scaler["spec"]["metrics"]
    }
    assert told == {
        "anatomy_waiting_texts": targets.texts,
        "anatomy_waiting_generations": targets.waiting_generations,
    }


def test_the_page_is_what_the_figures_make() -> None:
    figures = bending.read_all(FIGURES)
    page = page_text(figures, growing.read_all(FIGURES), replicating.read(FIGURES))
    assert (ROOT / "docs" / "capacity.md").read_text() == page


def test_the_formula_of_the_page_is_the_one_that_decides(targets: Targets) -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    assert "replicas = ⌈ mean of what replicas have at hand × replicas / target ⌉" in page
    # Two replicas that each have at hand what they should stay two, and one more text asks for one.
    full = float(targets.texts)
    assert wanted_replicas([full, full], 2, full) == 2
    assert wanted_replicas([full, full + 1], 2, full) == 3
