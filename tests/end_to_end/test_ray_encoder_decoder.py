"""An encoder-decoder behind Ray Serve, through the official client: a source in, a target out."""

from collections.abc import Sequence

import httpx
import pytest
import torch
from openai import BadRequestError, OpenAI
from torch import Tensor

from export.artifact import Artifact
from loadtests.service_process import Running
from model_core.attention import Padded
from model_core.checkpoints.load import Loaded
from model_core.reference_decoding import Rules, beam_search, greedy
from model_core.tokenization import Tokenizer

pytestmark = pytest.mark.ray

SOURCE = "hello world"
STEPS = 12


class Oracle:
    """The same model in PyTorch, decoding without a cache."""

    def __init__(self, artifact: Artifact, ours: Loaded) -> None:
        self.ours = ours
        self.tokenizer = Tokenizer.load(artifact.folder)
        own = artifact.manifest.generation
        self.start = list(own.decoder_start)
        self.rules = Rules(
            self.tokenizer.eos_ids, own.forced_first, own.forced_last, own.suppressed
        )
        source = torch.tensor([self.tokenizer.encode(SOURCE)])
        self.layout = Padded.of(source)
        with torch.inference_mode():
            self.memory = ours.model.transformer.encode(source, self.layout)

    @torch.inference_mode()
    def next_logits(self, token_ids: Sequence[int]) -> Tensor:
        rows = torch.tensor([list(token_ids)])
        layout = Padded.of(rows, memory=self.layout)
        hidden = self.ours.model.transformer.decode(rows, layout, self.memory)
        return self.ours.model.heads["seq2seq"](hidden[0, -1])

    def text(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode([t for t in token_ids if t not in self.tokenizer.eos_ids])


@pytest.fixture
def oracle(tiny_t5: tuple[Artifact, Loaded]) -> Oracle:
    return Oracle(*tiny_t5)


def test_greedy_is_the_models_own(openai: OpenAI, oracle: Oracle) -> None:
    answer = openai.completions.create(model="t5", prompt=SOURCE, max_tokens=STEPS, temperature=0)
    expected = greedy(oracle.next_logits, oracle.start, STEPS, oracle.rules)
    assert len(set(expected)) > 3  # not the same letter for ever
    assert answer.choices[0].text == oracle.text(expected)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(SOURCE)  # a letter a token


def test_beam_search_is_the_models_own(openai: OpenAI, oracle: Oracle) -> None:
    answer = openai.completions.create(
        model="t5", prompt=SOURCE, max_tokens=STEPS,
        extra_body={"use_beam_search": True, "best_of": 3, "length_penalty": 1.5},
    )  # fmt: skip
    expected = beam_search(
        oracle.next_logits, oracle.start, STEPS, 3, oracle.rules, length_penalty=1.5
    )
    assert answer.choices[0].text == oracle.text(expected)


def test_a_stream_says_what_the_answer_says(openai: OpenAI) -> None:
    wanted = {"model": "t5", "prompt": SOURCE, "max_tokens": STEPS, "temperature": 0}
    whole = openai.completions.create(**wanted).choices[0].text
    parts = openai.completions.create(**wanted, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole


def test_sources_beside_one_another_don_t_change_a_target(openai: OpenAI) -> None:
    alone = openai.completions.create(model="t5", prompt=SOURCE, max_tokens=STEPS, seed=7)
    others = ["a", SOURCE, "something much longer than the others are", "b" * 20]
    together = openai.completions.create(model="t5", prompt=others, max_tokens=STEPS, seed=7)
    assert together.choices[1].text == alone.choices[0].text


def test_chat_and_embeddings_are_refused_with_a_reason(openai: OpenAI, service: Running) -> None:
    with pytest.raises(BadRequestError, match="chat template"):
        openai.chat.completions.create(model="t5", messages=[{"role": "user", "content": SOURCE}])
    body = {"model": "t5", "input": SOURCE}
    refused = httpx.post(f"{service.url}/v1/embeddings", json=body)
    assert refused.status_code in (400, 404)
    assert "t5" in refused.json()["error"]["message"]
