"""Llama of random weights: steps of several rows, and a long prompt."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from transformers import LlamaForCausalLM

from export.session import CachedSession, Session
from loadtests.peers.comparison import Comparison
from loadtests.peers.gpu.device import Device, timed
from loadtests.peers.gpu.models import (
    SEED,
    SPECIAL,
    Sizes,
    checkpoint,
    exported,
    weights_of_products,
)
from loadtests.peers.gpu.sides import OURS, PYTORCH, Show, Side
from loadtests.peers.limits import Cost
from loadtests.peers.stage import Run
from service.engines.slots import Slots

CHECKED_STEPS = 32


def decoders(run: Run, device: Device, sizes: Sizes, show: Show) -> Iterator[Comparison]:
    """Llama: steps of several rows, and a long prompt."""
    config = sizes.llama
    name = f"llama-random-{config.hidden_size}x{config.num_hidden_layers}"
    folder = checkpoint(run.folder / "builds" / name, lambda: LlamaForCausalLM(config))
    artifact = exported(str(folder), device, run.cache)
    layout = artifact.manifest.cache
    if layout is None:
        raise ValueError("a decoder's manifest has a cache layout")
    rows, capacity = max(sizes.rows), max(sizes.context + sizes.steps, sizes.prompt) + 8
    session = Session(artifact.graph, device.provider, 1)
    slots = Slots(CachedSession(session, layout, rows, capacity), rows)
    # transformers' own types don't bind its methods.
    loaded: Any = LlamaForCausalLM.from_pretrained(folder, dtype=device.dtype)
    model = loaded.to(device.at).eval()
    weights = weights_of_products(model) + config.vocab_size * config.hidden_size

    def fill(row: int, prompt: list[int]) -> int:
        slots.clear(row)
        # Logits of the last token alone: those of all would be a gigabyte on its way to the host.
        logits = slots.prefill(row, prompt, wants_logits=True)
        if logits is None:
            raise ValueError("logits were asked for")
        return int(logits.argmax())

    def ours(prompts: list[list[int]], steps: int) -> tuple[float, list[list[int]]]:
        last = [fill(row, prompt) for row, prompt in enumerate(prompts)]
        said = [[token] for token in last]

        def decode() -> None:
            nonlocal last
            for _ in range(steps):
                chosen = slots.decode(range(len(prompts)), last, len(prompts)).argmax(-1)
                last = chosen.tolist()
                for row, token in zip(said, last, strict=True):
                    row.append(token)

        return timed(device, decode), said

    def generate(prompts: list[list[int]], steps: int) -> torch.Tensor:
        ids = torch.tensor(prompts, device=device.at)
        generated: Any = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            pad_token_id=1,
            cache_implementation="static",  # compiled by transformers, where there is a GPU
        )
        return generated[:, ids.shape[1] :].cpu()

    def theirs(prompts: list[list[int]], steps: int) -> float:
        """The steps alone: what a longer generation takes more than one of a single token."""
        first = timed(device, lambda: generate(prompts, 1))
        seconds = timed(device, lambda: generate(prompts, 1 + steps)) - first
        if seconds <= 0:
            raise RuntimeError(f"{steps} steps took no longer than none: too few to be measured")
        return seconds

    draw = random.Random(SEED)

    def words(count: int) -> list[int]:
        return [draw.randrange(SPECIAL, config.vocab_size) for _ in range(count)]

    for count in sizes.rows:
        prompts = [words(sizes.context) for _ in range(count)]
        checked = min(CHECKED_STEPS, sizes.steps)
        _, said = ours(prompts, checked)
        expected = generate(prompts, 1 + checked).tolist()
        pairs = [
            a == b for x, y in zip(said, expected, strict=True) for a, b in zip(x, y, strict=True)
        ]
        for tokens in (1 + sizes.steps, 1, 1):  # compiled and warm from here on
            generate(prompts, tokens)
        done = count * sizes.steps
        yield show(
            "gpu-decoder",
            f"{count}x{sizes.context}",
            f"Llama of {weights / 1e9:.2f}B, {sizes.steps} steps of {count} rows after "
            f"{sizes.context} tokens",
            "tokens/s",
            [
                Side(
                    "ours", OURS, "through the slots",
                    lambda p=prompts, d=done: {"tokens/s": d / ours(p, sizes.steps)[0]},
                    sum(pairs) / len(pairs),
                ),
                Side(
                    "transformers", PYTORCH, "static cache, compiled",
                    lambda p=prompts, d=done: {"tokens/s": d / theirs(p, sizes.steps)},
                    1.0,
                ),
            ],
            Cost(2.0 * weights, weights / count),
            f"greedy tokens that are the same, of the first {1 + checked}",
        )  # fmt: skip
    prompt = words(sizes.prompt)
    fill(0, prompt)
    generate([prompt], 1)
    yield show(
        "gpu-decoder",
        f"prefill-{sizes.prompt}",
        f"Llama of {weights / 1e9:.2f}B, a prompt of {sizes.prompt} tokens until its next is there",
        "prompt tokens/s",
        [
            Side(
                "ours", OURS, "the whole prompt at once",
                lambda: {"prompt tokens/s": len(prompt) / timed(device, lambda: fill(0, prompt))},
            ),
            Side(
                "transformers", PYTORCH, "static cache",
                lambda: {
                    "prompt tokens/s": len(prompt) / timed(device, lambda: generate([prompt], 1))
                },
            ),
        ],
        Cost(2.0 * weights_of_products(model)),
    )  # fmt: skip
