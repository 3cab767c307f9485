"""From an artifact's folder to a served encoder-decoder, over graphs that are written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.artifact import (
    ENCODER_GRAPH,
    GRAPH,
    ArtifactError,
    GenerationDefaults,
    Inspection,
    Kind,
    Parity,
    Precision,
)
from service.app import create_app
from service.living import ModelGroup
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.artifacts import OWN, golden, write_artifact
from tests.support.service import client_of


def group_of(folder: Path) -> ModelGroup:
    settings = ServiceSettings(models=(str(folder),), slots=6, threads=1)
    return ModelGroup(settings, Registry(), Metrics())


async def test_an_encoder_decoder_is_served_from_its_folder(tmp_path: Path) -> None:
    group = group_of(write_artifact(tmp_path / "tiny"))
    group.load()
    app = create_app(group.registry, group.settings, group.metrics)
    try:
        async with client_of(app) as client:

            async def ask(**fields: Any) -> dict[str, Any]:
                body = {"model": "tiny", "prompt": "hello", **fields}
                answer = await client.post("/v1/completions", json=body)
                assert answer.status_code == 200, answer.text
                return answer.json()

            searched = await ask()
            assert searched["usage"] == {
                "prompt_tokens": 5, "completion_tokens": 15, "total_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 0},
            }  # fmt: skip
            assert searched == await ask() | {key: searched[key] for key in ("id", "created")}
            text = searched["choices"][0]["text"]
            assert text.split()[0] == "h", "the forced token"
            others = [await ask(prompt="world"), await ask(temperature=0)]
            assert text not in [other["choices"][0]["text"] for other in others]
            body = {"model": "tiny", "prompt": "hello", "stream": True}
            streamed = await client.post("/v1/completions", json=body)
            events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: {")]
            pieces = [json.loads(event)["choices"][0]["text"] for event in events]
            assert "".join(pieces) == text, "what beams don't agree on is never sent"
            info = (await client.get("/info")).json()["models"][0]
            assert info["generation"]["beams"] == 4
            too_long = await client.post(
                "/v1/completions", json={"model": "tiny", "prompt": "a" * 25}
            )
            assert too_long.status_code == 400
            assert "25 tokens; model 'tiny' takes at most 24" in too_long.text
    finally:
        group.close()


@pytest.mark.parametrize("graph", [ENCODER_GRAPH, GRAPH])
def test_each_graph_has_to_reproduce_its_golden_outputs(tmp_path: Path, graph: str) -> None:
    folder = write_artifact(tmp_path / "right")
    wrong = golden(folder)
    outputs = wrong[graph][1]
    outputs[next(iter(outputs))] = outputs[next(iter(outputs))] + 1
    group = group_of(write_artifact(tmp_path / "wrong", golden=wrong))
    with pytest.raises(ArtifactError, match=f"the golden outputs of {graph} are off"):
        group.load()


@pytest.mark.parametrize(("changes", "said"), [
    ({"cross": None}, "cross and generation.decoder_start are for an encoder-decoder"),
    ({"cache": None}, "cache is for what generates"),
    ({"generation": GenerationDefaults()}, "decoder_start"),
    ({"generation": OWN.model_copy(update={"max_source_tokens": 0})}, "max_source_tokens"),
    ({"kind": Kind.DECODER}, "cross and generation.decoder_start are for an encoder-decoder"),
    ({"kind": Kind.ENCODER}, "cache is for what generates"),
])  # fmt: skip
def test_a_manifest_has_what_its_kind_needs(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        write_artifact(tmp_path / "wrong", **changes)


def test_an_inspection_graph_is_not_served_and_the_error_says_what_is(tmp_path: Path) -> None:
    near = Parity(largest_error=0.0, smallest_cosine=1.0, processor="any")
    seen = Inspection(of="0" * 64, sites=(), lens=None, precision=Precision.FP32, distance=near)
    folder = write_artifact(
        tmp_path / "seen", kind=Kind.INSPECTION, inspection=seen, cache=None, cross=None,
        generation=GenerationDefaults(),
    )  # fmt: skip
    with pytest.raises(ArtifactError, match="serve a test with --inspect"):
        group_of(folder).load()
