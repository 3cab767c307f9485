"""Gradients of every module there is, in every family, against finite differences in float64."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor, nn

import model_core
from model_core.attention import Fused, Padded
from model_core.checkpoints.load import Loaded
from model_core.config import PoolingMode
from model_core.heads import Classifier
from model_core.pooling import SentenceEmbedder, pool
from model_core.sentence_config import DenseStep, NormStep, SentenceConfig, UnitStep
from tests.support.families import CASES
from tests.support.families.parity import load_ours

STEP = 1e-6
"""Of a difference. What is left out grows with its square, rounding with its inverse."""
LENGTHS = torch.tensor([6, 4])

FIRST = {case.family: case for case in reversed(CASES)}
# The first case of each family under its first head; all heads stand on one of them.
PAIRS = [
    (family, head)
    for family, case in FIRST.items()
    for head in list(case.heads or [None])[: None if family == "bert" else 1]
]


@cache
def ours(family: str, head: str | None) -> Loaded:
    case = FIRST[family]
    with TemporaryDirectory() as folder:
        loaded = load_ours(case.reference(head), Path(folder), [head] if head else [], Fused())
    loaded.model.double().requires_grad_(True)
    return loaded


def output_of(loaded: Loaded) -> Tensor:
    """Of two rows, the second shorter: hidden states, or what the head makes of them."""
    model, transformer = loaded.model, loaded.model.transformer
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 60, (2, 6), generator=generator)
    mask = torch.arange(6) < LENGTHS[:, None]
    layout = Padded.of(ids, mask)
    memory = None if transformer.encoder is None else transformer.encode(ids, layout)
    if transformer.decoder is None:
        assert isinstance(memory, Tensor)
        hidden = memory
    else:
        hidden = transformer.decode(ids.flip(0), Padded.of(ids, mask, layout), memory)
    for head in model.heads.values():
        if isinstance(head, Classifier) and head.pooling is not None:
            return head(pool(hidden, LENGTHS, head.pooling))
        return head(hidden[mask])
    return hidden[mask]


def require_true_gradients(module: nn.Module, output: Callable[[], Tensor]) -> None:
    """Along a random direction of each parameter, the slope is what the gradient says."""
    torch.manual_seed(5)
    weights = torch.randn_like(output())
    module.zero_grad()
    (output() * weights).sum().backward()
    for name, parameter in module.named_parameters():
        # Layers are alike, and what comes back through the others is part of the first one's.
        if parameter.grad is None or (".blocks." in name and ".blocks.0." not in name):
            continue
        direction = torch.randn_like(parameter)
        found = (parameter.grad * direction).sum().item()
        with torch.no_grad():
            values = []
            before = parameter.clone()
            for sign in (1, -1):
                parameter.copy_(before + sign * STEP * direction)
                values.append((output() * weights).sum().item())
            parameter.copy_(before)
        slope = (values[0] - values[1]) / (2 * STEP)
        # Rounding: the sums are of some hundreds, to 16 digits, over the step.
        assert found == pytest.approx(slope, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_gradients_of_a_family_are_those_of_finite_differences(family: str, head: str | None):
    loaded = ours(family, head)
    require_true_gradients(loaded.model, lambda: output_of(loaded))


def embedder() -> SentenceEmbedder:
    torch.manual_seed(0)
    steps = (DenseStep("dense", 8 * len(PoolingMode), 6), NormStep("norm", 6), UnitStep())
    return SentenceEmbedder(SentenceConfig(tuple(PoolingMode), steps)).double()


def test_gradients_of_pooling_and_its_layers_are_those_of_finite_differences():
    module = embedder()
    hidden = nn.Parameter(torch.randn(2, 6, 8, dtype=torch.double))
    module.register_parameter("hidden", hidden)
    require_true_gradients(module, lambda: module(hidden, LENGTHS))


def test_no_module_is_left_out():
    found: set[type[nn.Module]] = set()
    for info in pkgutil.iter_modules(model_core.__path__, "model_core."):
        if info.ispkg:
            continue
        for _, kind in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if issubclass(kind, nn.Module) and kind.__module__ == info.name:
                found.add(kind)
    seen = {type(part) for part in embedder().modules()}
    for family, head in PAIRS:
        seen |= {type(part) for part in ours(family, head).model.modules()}
    assert found - seen == set()
    assert len(found) > 15
