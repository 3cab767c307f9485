"""SmolLM2-135M-Instruct, real weights: greedy continuations against transformers' Llama.

The reference dequantises the same GGUF by its own code and is given our token ids; what it says is
compared with the cache, the chunks and the batches of our own session.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, GgufConfig, LlamaForCausalLM

from export.artifact import Artifact
from export.session import CachedSession, Provider, Session, usable_cores
from model_core.tokenization import Tokenizer
from service.engines.slots import Slots
from tests.support.texts import passages

NEW_TOKENS = 64
# Two tokens whose logits differ by less are equals: float32 sums of thirty layers in another
# order move a logit of magnitude 20 by about 1e-4.
NEAR_TIE = 1e-3
PROMPTS = (
    "Once upon a time, in a village by the sea,",
    "The capital of France is",
    "To make a good cup of tea, first",
    "def fibonacci(n):\n",
    "Question: Why is the sky blue?\nAnswer:",
    "The three laws of motion state that",
    "Dear Sir or Madam,\n\nI am writing to",
    "A Transformer is a neural network that",
    "1, 1, 2, 3, 5, 8, 13,",
    "import numpy as np\n\n\ndef softmax(x):\n",
    "The difference between a virus and a bacterium is",
    "Roses are red,",
    "In 1969, the first",
    "SELECT name, price FROM",
    "The best way to learn a language is to",
    "Water boils at",
    "<|im_start|>user\nWrite a haiku about rain.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhat is 12 times 12?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nName three fruits.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nExplain gravity to a child.<|im_end|>\n<|im_start|>assistant\n",
)


@dataclass(frozen=True)
class Continuation:
    """What our fp32 engine says after a prompt, and the reference's logits for each token.

    `logits` [NEW_TOKENS, V] are given what we said before. By induction, what the reference would
    say by itself is what we say if, and only if, its likeliest tokens are ours throughout.
    """

    prompt: list[int]
    tokens: list[int]
    logits: NDArray[np.float32]

    @property
    def choices(self) -> list[int]:
        """The reference's likeliest token at each step."""
        return self.logits.argmax(-1).tolist()


@pytest.fixture(scope="module")
def reference(smollm2_gguf: Path) -> LlamaForCausalLM:
    pytest.importorskip("accelerate", reason="transformers reads GGUF files through accelerate")
    model = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent,
        gguf_file=smollm2_gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()


def pool(artifact: Artifact, rows: int, capacity: int) -> Slots:
    layout = artifact.manifest.cache
    assert layout is not None
    session = Session(artifact.graph, Provider.CPU, usable_cores())
    return Slots(CachedSession(session, layout, rows, capacity), rows)


def prefilled(slots: Slots, row: int, prompt: list[int], chunk: int) -> NDArray[np.float32]:
    """Logits after a prompt that is run in chunks, as the engine does."""
    logits = None
    for start in range(0, len(prompt), chunk):
        part = prompt[start : start + chunk]
        logits = slots.prefill(row, part, wants_logits=start + chunk >= len(prompt))
    assert logits is not None
    return logits


def greedy(artifact: Artifact, prompts: list[list[int]]) -> list[list[int]]:
    """Prefill in chunks, then decode all together."""
    slots = pool(artifact, len(prompts), max(map(len, prompts)) + NEW_TOKENS)
    said = [[int(prefilled(slots, row, each, 16).argmax())] for row, each in enumerate(prompts)]
    rows = range(len(prompts))
    for _ in range(NEW_TOKENS - 1):
        logits = slots.decode(rows, [tokens[-1] for tokens in said], len(prompts))
        for row in rows:
            said[row].append(int(logits[row].argmax()))
    return said


@pytest.fixture(scope="module")
def continuations(
    reference: LlamaForCausalLM, smollm2_fp32_artifact: Artifact
) -> list[Continuation]:
    """Greedy, all prompts in one batch; end tokens don't end it."""
    tokenizer = Tokenizer.load(smollm2_fp32_artifact.folder)
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    said = greedy(smollm2_fp32_artifact, prompts)
    whole = [torch.tensor(prompt + ours) for prompt, ours in zip(prompts, said, strict=True)]
    # Padding stands behind the tokens, so a causal model needs no mask for it.
    rows = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)
    with torch.inference_mode():
        hidden = reference.model(rows).last_hidden_state
        logits = [
            reference.lm_head(hidden[row, len(prompt) - 1 : len(prompt) - 1 + NEW_TOKENS]).numpy()
            for row, prompt in enumerate(prompts)
        ]
    return [Continuation(*parts) for parts in zip(prompts, said, logits, strict=True)]


def test_fp32_greedy_continuations_are_those_of_transformers(
    continuations: list[Continuation], record_property
) -> None:
    equal = sum(each.tokens == each.choices for each in continuations)
    record_property("equal_continuations", equal)
    print(f"equal greedy continuations, fp32: {equal} of {len(continuations)}")
    for each in continuations:
        if each.tokens != each.choices:
            step = next(i for i in range(NEW_TOKENS) if each.tokens[i] != each.choices[i])
            logits = each.logits[step]
            gap = logits[each.choices[step]] - logits[each.tokens[step]]
            assert gap < NEAR_TIE, f"step {step} of {each.prompt}: the logits differ by {gap}"
    assert equal >= len(continuations) - 1


def test_int8_agrees_on_the_next_token_along_the_continuations(
    continuations: list[Continuation], smollm2_artifact: Artifact, record_property
) -> None:
    longest = max(len(each.prompt) for each in continuations)
    slots = pool(smollm2_artifact, len(continuations), longest + NEW_TOKENS)
    rows = range(len(continuations))
    first = [prefilled(slots, row, each.prompt, 16) for row, each in enumerate(continuations)]
    chosen = [np.stack(first).argmax(-1)]
    for step in range(NEW_TOKENS - 1):
        logits = slots.decode(rows, [each.tokens[step] for each in continuations], len(rows))
        chosen.append(logits.argmax(-1))
    expected = np.array([each.choices for each in continuations])
    agreement = float((np.stack(chosen, axis=1) == expected).mean())
    record_property("top1_agreement", agreement)
    print(f"teacher-forced top-1 agreement, int8: {agreement:.4f} of {expected.size}")
    # Disagreements are near-ties of the reference.
    assert agreement >= 0.97


def perplexity(artifact: Artifact) -> float:
    """Of the passages, each run in one go; their first tokens are given."""
    layout = artifact.manifest.cache
    assert layout is not None
    tokenizer = Tokenizer.load(artifact.folder)
    texts = [tokenizer.encode(text) for text in passages()]
    session = Session(artifact.graph, Provider.CPU, usable_cores())
    decoder = CachedSession(session, layout, 1, max(map(len, texts)))
    losses: list[NDArray[np.float64]] = []
    for text in texts:
        inputs, expected = np.array([text[:-1]]), np.array(text[1:])
        nothing = np.zeros(1, np.int64)
        logits = decoder.step(slice(0, 1), inputs, nothing, np.arange(len(expected)))
        exact = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        chosen = exact[np.arange(len(expected)), expected]
        losses.append(np.log(np.exp(exact).sum(-1)) - chosen)
    return float(np.exp(np.concatenate(losses).mean()))


def test_int8_costs_little_of_the_perplexity(
    smollm2_artifact: Artifact, smollm2_fp32_artifact: Artifact, record_property
) -> None:
    exact, rounded = perplexity(smollm2_fp32_artifact), perplexity(smollm2_artifact)
    record_property("perplexity", rounded)
    print(f"perplexity: fp32 {exact:.3f}, int8 {rounded:.3f} ({rounded / exact - 1:+.2%})")
    assert rounded <= exact * 1.02
