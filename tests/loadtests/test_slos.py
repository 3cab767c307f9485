"""Which requests are good, which runs, and which files say so."""

from pathlib import Path

import pytest

from loadtests.rows import BROKEN, Row
from loadtests.slos import DEFAULT_FILE, Slos, SlosError, read_slos
from loadtests.tasks import TASKS

CHAT = {"chat": {"first_token_ms": 500, "time_per_output_token_ms": 100}}


def row(latency_s: float = 0.1, status: int = 200, *, task: str = "embeddings", lag_s: float = 0.0,
        first_token_s: float | None = None, gaps: int = 0) -> Row:  # fmt: skip
    return Row(task, 0.0, lag_s, latency_s, status, None, first_token_s, (0.01,) * gaps)


def slos(**fields: object) -> Slos:
    return Slos.model_validate(fields)


def test_a_good_request_keeps_every_limit_of_its_task() -> None:
    of_chats = slos(slos=CHAT)
    assert of_chats.is_good(row(1.5, task="chat", first_token_s=0.5, gaps=10))
    assert not of_chats.is_good(row(1.5, task="chat", first_token_s=0.51, gaps=10))
    assert not of_chats.is_good(row(1.6, task="chat", first_token_s=0.5, gaps=10))
    assert not of_chats.is_good(row(1.5, BROKEN, task="chat", first_token_s=0.5, gaps=10))
    assert of_chats.is_good(row(0.4, task="chat", first_token_s=0.4))  # of one token
    assert of_chats.is_good(row(9.0))  # a task without an SLO
    assert not of_chats.is_good(row(0.1, 429))


def test_thresholds_tell_what_a_run_broke() -> None:
    limits = {"good_share": 0.75, "shed_share": 0.25, "failed_share": 0.25, "lag_p99_ms": 50}
    found = slos(slos={"embeddings": {"end_to_end_ms": 200}}, thresholds=limits)
    assert found.faults([row(), row(), row(), row(1.0)]) == []
    assert found.faults([row(), row(), row(1.0), row(1.0)]) == [
        "50.0% of requests were good; at least 75.0%"
    ]
    bad = [row(), row(0.1, 429), row(0.1, 429), row(0.1, 500), row(0.1, BROKEN)]
    assert [fault.split(";")[0] for fault in found.faults(bad)] == [
        "20.0% of requests were good", "40.0% of requests shed", "40.0% of requests failed",
    ]  # fmt: skip
    assert "100 ms late" in found.faults([row(lag_s=0.1)] * 4)[0]
    assert found.faults([]) == ["nothing was asked"]


def test_the_file_that_is_used_without_another_has_slos_of_every_task() -> None:
    found = read_slos(DEFAULT_FILE, tuple(TASKS))
    assert found.slos.keys() == TASKS.keys()
    assert found.thresholds.failed_share == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slos: {chat: {first_token: 5}}", "did you mean 'first_token_ms'"),
        ("slo: {}", "did you mean 'slos'"),
        ("slos: {chats: {end_to_end_ms: 5}}", "no task 'chats'; accepted: embeddings"),
        ("slos: {chat: {end_to_end_ms: -1}}", "slos.chat.end_to_end_ms"),
        ("slos: {chat: {}}", "no limit; at least one of"),
        ("thresholds: {good_share: 95}", "thresholds.good_share"),
        ("thresholds: [", "can't be read"),
        ("- 1", "slos.yaml"),
    ],
)
def test_a_file_that_cant_be_used_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "slos.yaml"
    path.write_text(text)
    with pytest.raises(SlosError, match=r"slos\.yaml") as raised:
        read_slos(path, tuple(TASKS))
    assert said in str(raised.value)
