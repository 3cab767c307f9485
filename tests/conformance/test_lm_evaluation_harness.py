"""lm-evaluation-harness scores texts over HTTP as PyTorch does by itself.

It sends token ids and reads the log probabilities of a prompt (`echo`). Run by the environment of
the service, which has torch; the harness is in the clients' (`make conformance`).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from export.artifact import Artifact
from tests.conformance.rows import covers
from tests.conformance.service import Service, started
from tests.support.texts import passages

torch = pytest.importorskip("torch", reason="the clients' environment has no torch")

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("CLIENTS_PYTHON", ROOT / ".venv-clients" / "bin" / "python"))
SCORED_WORDS = 30
# Sums of some forty log probabilities, each from float32 logits of another order of sums.
TOLERANCE = 1e-3

TASK = """task: passages
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{context}}}}"
doc_to_target: "{{{{continuation}}}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
"""

pytestmark = pytest.mark.skipif(
    not CLIENTS.exists(), reason="lm-eval isn't installed: `make conformance` does so"
)


@dataclass(frozen=True, slots=True)
class Scored:
    """The log probability of a continuation, and whether each token of it is the likeliest."""

    logprob: float
    is_greedy: bool


@pytest.fixture(scope="module")
def documents() -> list[dict[str, str]]:
    """The beginning of each passage, and the words that come then."""
    found: list[dict[str, str]] = []
    for passage in passages():
        words = passage.split(" ")
        context, scored = words[:SCORED_WORDS], words[SCORED_WORDS : 2 * SCORED_WORDS]
        found.append({"context": " ".join(context), "continuation": " " + " ".join(scored)})
    # One that a small model goes on with by itself, so that both answers are seen.
    found.append({"context": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,", "continuation": " 12, 13, 14"})
    return found


@pytest.fixture(scope="module")
def smollm2(
    smollm2_fp32_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("harness")
    with started([str(smollm2_fp32_artifact.folder)], folder) as running:
        yield running


@covers("lm_eval", "local-completions: token ids, echo, logprobs; equal to PyTorch to 1e-3")
def test_a_text_scored_over_http_scores_as_in_pytorch(
    documents: list[dict[str, str]],
    smollm2: Service,
    smollm2_fp32_artifact: Artifact,
    smollm2_gguf: Path,
    tmp_path: Path,
) -> None:
    theirs = scored_by_the_harness(documents, smollm2, smollm2_fp32_artifact.folder, tmp_path)
    ours = scored_by_pytorch(documents, smollm2_gguf, smollm2_fp32_artifact.folder)
    assert len(theirs) == len(ours) == len(documents)
    for one, other, document in zip(theirs, ours, documents, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=TOLERANCE), document
        assert one.is_greedy == other.is_greedy, document
    assert {one.is_greedy for one in ours} == {True, False}


def scored_by_the_harness(
    documents: list[dict[str, str]], service: Service, artifact: Path, folder: Path
) -> list[Scored]:
    """What lm-eval's command finds for a task of `documents`, by our `/v1/completions`."""
    lines, tokenizer = folder / "documents.jsonl", folder / "tokenizer"
    lines.write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / "passages.yaml").write_text(TASK.format(documents=lines))
    tokenizer.mkdir()
    shutil.copy(artifact / "tokenizer.json", tokenizer)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(kind))
    model = f"model=smollm2,base_url={service.openai_url}/completions,tokenizer={tokenizer}"
    command = [str(CLIENTS), "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", f"{model},tokenizer_backend=huggingface,max_retries=1"]
    command += ["--tasks", "passages", "--include_path", str(folder), "--batch_size", "1"]
    command += ["--log_samples", "--output_path", str(folder / "results")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(
        command,
        env={**os.environ, **offline, "OPENAI_API_KEY": service.key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (samples,) = (folder / "results").rglob("samples_passages_*.jsonl")
    found = [json.loads(line) for line in samples.read_text().splitlines()]
    rows = [sample["filtered_resps"][0] for sample in sorted(found, key=lambda s: s["doc_id"])]
    return [Scored(float(logprob), str(is_greedy) == "True") for logprob, is_greedy in rows]


def scored_by_pytorch(
    documents: list[dict[str, str]], checkpoint: Path, artifact: Path
) -> list[Scored]:
    """The same from our Transformer's logits in float32, without cache, batch or service."""
    from model_core.attention import Explicit, Padded
    from model_core.checkpoints.load import load
    from model_core.checkpoints.sources import locate
    from model_core.tokenization import Tokenizer

    model = load(locate(str(checkpoint), cache=artifact), Explicit(), ["language_model"]).model
    tokenizer = Tokenizer.load(artifact)
    found: list[Scored] = []
    for document in documents:
        start = len(tokenizer.encode(document["context"]))
        ids = torch.tensor([tokenizer.encode(document["context"] + document["continuation"])])
        with torch.inference_mode():
            hidden = model.transformer.decode(ids, Padded.of(ids, torch.ones_like(ids).bool()))
            logprobs = model.heads["language_model"](hidden)[0].log_softmax(-1)
        before, chosen = logprobs[start - 1 : -1], ids[0, start:]
        total = before.gather(1, chosen[:, None]).double().sum()
        found.append(Scored(float(total), bool((before.argmax(-1) == chosen).all())))
    return found
