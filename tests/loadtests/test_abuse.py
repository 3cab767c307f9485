"""Open-loop arrivals, misbehaving clients and what is made of them, against a tiny server."""

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from loadtests.abuse import churn as churning
from loadtests.abuse import overload as overloading
from loadtests.abuse.churn import Churn, Snapshot, send_all
from loadtests.abuse.clients import KINDS, Behaviour, Kind, Material
from loadtests.abuse.process import Holding, holding_of
from loadtests.abuse.report import write_report
from loadtests.gauges import gauges_of
from loadtests.machine import this_machine
from loadtests.rows import BROKEN, Row
from tests.support.servers import answering, running
from tests.support.service import served

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 429 No\r\ncontent-length: 0\r\nRetry-After: 3\r\n\r\n"


def outcome(due: float, latency: float, status: int) -> Row:
    return Row("chat", due, 0.0, latency, status, 2 if status == 429 else None)


def test_goodput_counts_what_ended_in_the_second_half() -> None:
    outcomes = [outcome(0.5, 0.1, 200), outcome(1.0, 5.5, 200), outcome(6.0, 1.0, 200),
                outcome(8.0, 5.0, 200), outcome(9.0, 0.1, 429)]  # fmt: skip
    found = overloading.summary(outcomes, before=0.5, after=0.3, rate=0.8, seconds=10.0)
    assert found.goodput == 2 / 5
    assert found.plateau == pytest.approx(0.4)
    assert found.faults == []
    assert (found.answered, found.refused, found.lost) == (4, 1, 0)
    assert found.retry_after_s == (2, 2)
    assert sum(second.answered for second in found.every_second) == 4
    lost = overloading.summary(
        [*outcomes[:-1], outcome(2.0, 1.0, BROKEN)], before=5.0, after=5.0, rate=1.0, seconds=10.0
    )
    assert len(lost.faults) == 3


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_every_kind_of_request_is_made_of_any_material(kind: Kind) -> None:
    material = Material(random.Random(0), ["a text"])
    requests = {kind.make(material) for _ in range(20)}
    assert all(requests)
    if kind.statuses == {200}:
        for request in requests:
            assert json.loads(request.partition(b"\r\n\r\n")[2])["model"]


async def test_clients_misbehave_as_they_say_and_right_answers_are_told_from_wrong_ones() -> None:
    seen: Counter[bytes] = Counter()

    async def answer(writer: asyncio.StreamWriter) -> None:
        seen[b"whole"] += 1
        writer.write(OK)

    def kind(behaviour: Behaviour, status: int = 200) -> Kind:
        return Kind(behaviour.name, 1, lambda _: GET, frozenset({status}), behaviour)

    kinds = [
        kind(Behaviour.WHOLE),
        kind(Behaviour.LEAVES),
        kind(Behaviour.READS_SOME),
        kind(Behaviour.SENDS_HALF),
    ]
    async with answering(answer) as port:
        right = await send_all(port, [(one, GET) for one in kinds], random.Random(0))
        wrong = await send_all(port, [(kind(Behaviour.WHOLE, 400), GET)], random.Random(0))
    assert right == []
    assert wrong == ["WHOLE: Unanswered('status 200')"]
    assert seen[b"whole"] >= 3


async def test_a_good_service_passes_and_what_it_holds_is_counted() -> None:
    kinds = [one for one in KINDS if one.name in ("bytes that are no HTTP", "an unknown route")]
    material = Material(random.Random(0), ["a"])
    with running(served()) as url:
        port = int(url.rpartition(":")[2])
        made = [(one, one.make(material)) for one in kinds for _ in range(10)]
        assert await send_all(port, made, random.Random(0)) == []


def test_a_process_holds_memory_descriptors_and_threads() -> None:
    before = holding_of(os.getpid())
    with Path(os.devnull).open():
        assert holding_of(os.getpid()).descriptors == before.descriptors + 1
    assert before.resident_bytes > 2**20
    assert before.threads >= 1
    with pytest.raises(ProcessLookupError):
        holding_of(2**22 + 1)


def test_gauges_of_all_models_are_added() -> None:
    text = 'te_queue_size{model_name="a"} 1.0\nte_queue_size{model_name="b"} 2.0\nother 5\n'
    assert gauges_of(text)["te_queue_size"] == 3


def churned(*resident: int, descriptors: int = 17, running: float = 0.0) -> Churn:
    snapshots = [
        Snapshot(number * 1000, Holding(size, 17, 9), {"vllm:num_requests_running": 0.0})
        for number, size in enumerate(resident)
    ]
    last = Snapshot(
        len(resident) * 1000,
        Holding(resident[-1], descriptors, 9),
        {"vllm:num_requests_running": running},
    )
    return Churn(this_machine(), 10, 2, {"a": 10}, (), (*snapshots, last))


def test_growth_counts_from_when_all_was_warm() -> None:
    assert churned(10, 1000, 1029).faults == []
    assert "memory grew by 4.0%" in churned(10, 1000, 1040).faults[0]
    assert "18 descriptors are open, 17 were" in churned(10, 10, descriptors=18).faults[0]
    assert "still held" in churned(10, 10, running=1.0).faults[0]


def test_pages_of_files_are_no_growth_where_they_are_told_apart() -> None:
    snapshots = [
        Snapshot(number, Holding(resident, 17, 9, own), {})
        for number, (resident, own) in enumerate([(1, 1), (1000, 500), (2000, 505)])
    ]
    found = Churn(this_machine(), 10, 2, {"a": 10}, (), tuple(snapshots))
    assert found.growth == pytest.approx(0.01)
    assert found.faults == []


def test_figures_are_read_as_they_were_written_and_make_a_page(tmp_path: Path) -> None:
    outcomes = [outcome(0.1, 0.2, 200), outcome(0.2, 0.2, 200), outcome(0.6, 0.01, 429)]
    overload = overloading.summary(outcomes, before=2.0, after=2.0, rate=4.0, seconds=1.0)
    overloading.write(overload, tmp_path / "overload.json")
    churn = churned(10, 10)
    churning.write(churn, tmp_path / "churn.json")
    assert overloading.read(tmp_path / "overload.json") == overload
    assert churning.read(tmp_path / "churn.json") == churn
    page = write_report(overload, churn, tmp_path).read_text()
    assert "2, 1, 0, 0" in page
    assert (tmp_path / "images" / "benchmarks" / "overload.svg").is_file()
    assert TypeAdapter(dict).validate_json((tmp_path / "churn.json").read_bytes())["requests"] == 10
