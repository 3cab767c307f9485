"""The parity tests can fail: every field of a configuration and every key rule, changed, is caught.

A mutant is caught when its tensors no longer fit, when it can't be built, or when its outputs are
further from the reference than the parity tests allow. Beside those made by rule stand a few made
by hand, of code rather than of data.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_core import attention, blocks, relative
from model_core.checkpoints import load as loading
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.key_rules import AsIs, Drop, KeyRule, Split, match
from model_core.checkpoints.load import Description, load
from model_core.checkpoints.readers import open_tensors
from model_core.checkpoints.sources import locate
from model_core.config import (
    Activation,
    ConfigError,
    NormKind,
    PositionKind,
    TransformerConfig,
)
from tests.parity.test_family_tree import TOLERANCE
from tests.support.families import CASES, Case
from tests.support.families.exported import WRITERS, main_head
from tests.support.families.parity import (
    our_output,
    pad_id_of,
    reference_output,
    relative_error,
)

FIRST_OF_FAMILY = list({case.family: case for case in reversed(CASES)}.values())[::-1]

BASELINE = 1e-5
"""How far the two may be in float64: by what either computes in float32 (rotary tables, RMS norms).
A mutant has to be ten times as far, and further than any rounding in float64."""

LIMITS = {"max_positions": "how long texts may be; another sizes a table that no longer fits"}
"""Fields that decide about no number."""


def says_nothing(name: str, config: TransformerConfig, head: str | None) -> bool:
    """Whether the field of a mutant is one that the shape leaves without a meaning."""
    stack = config.encoder if name.startswith(".encoder") else config.decoder
    embedding = stack.embedding if stack else None
    is_shared = config.shared_embedding and len(config.stacks) == 2
    meaningless = {
        ".norm.bias": config.norm.kind is NormKind.RMS,
        # At the scale of ones, nothing that a float could show.
        ".norm.eps": config.norm.eps < 1e-9,
        ".head_norm.bias": True,
        ".projection_bias": embedding is None or embedding.token_dim is None,
        ".norm_last": embedding is None or embedding.token_dim is None,
        ".position_offset": embedding is None or embedding.position is PositionKind.NONE,
        ".shared_embedding": len(config.stacks) == 1,
        ".decoder.embedding.vocab_size": is_shared,
        ".language_model": head not in WRITERS,
        ".classifier": head != "sequence_classifier",
    }
    if stack and stack.shared_weights and re.search(r"attention\[[1-9]", name):
        return "bias" in name  # which tensors there are, the first block says
    return any(field in name and empty for field, empty in meaningless.items())


class Trial:
    """A reference's checkpoint and outputs, and how far a changed reading of it is from them."""

    def __init__(
        self, case: Case, head: str | None, folder: Path, lengths: tuple[int, ...] | None = None
    ) -> None:
        self.head = head
        reference = case.reference(self.head)
        reference.save_pretrained(folder)
        reference = reference.double()
        self.located = locate(str(folder), cache=folder)
        # Long enough for every bucket of distances, and without padding: in float64 the reference
        # computes NaN for padding that a window leaves without a key.
        self.texts = case.token_ids(lengths=lengths or (max(24, *case.lengths),) * 2)
        self.expected = reference_output(reference, self.texts, pad_id_of(reference))
        baseline = self.error()
        assert baseline <= BASELINE
        self.noticed = max(10 * baseline, 1e-9)

    def error(self) -> float:
        """How far ours is, as it is now; infinite where it can't be loaded or run."""
        try:
            ours = load(self.located, attention.Explicit(), [self.head] if self.head else [])
            ours.model.double()
            found = our_output(ours, self.head, self.texts)
        except (CheckpointError, ConfigError, RuntimeError, IndexError, TypeError):
            return torch.inf
        if found.shape != self.expected.shape or not found.isfinite().all():
            return torch.inf
        return relative_error(found, self.expected)


CONFIGURED_CLASSIFIERS = ("ModernBERT",)
"""Those whose `config.json` says all about the head on top."""


def trials() -> Iterator[Any]:
    """Each family with the head that it is exported with, or with a configured classifier."""
    for case in FIRST_OF_FAMILY:
        classifier = ["sequence_classifier"] if case.name in CONFIGURED_CLASSIFIERS else []
        for head in (main_head(case), *classifier):
            yield pytest.param((case, head), id=f"{case}, {head or 'hidden states'}")


@pytest.fixture(scope="module", params=trials())
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    case, head = request.param
    return Trial(case, head, tmp_path_factory.mktemp("trial"))


def other_values(value: Any, path: str) -> list[Any]:
    """What a field may be mistaken for; nothing where it is absent."""
    if path.endswith("max_distance"):
        return [value * 2]  # one more moves hardly a bucket
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, StrEnum):
        return [member for member in type(value) if member is not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * 1.5]
    return []


def mutants(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Copies of a nested configuration, each with one field changed, and which."""
    if isinstance(value, tuple):
        for place in range(len(value)):
            for name, changed in mutants(value[place], f"{path}[{place}]"):
                yield name, (*value[:place], changed, *value[place + 1 :])
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.name in LIMITS:
                continue
            inner = getattr(value, field.name)
            for name, changed in mutants(inner, f"{path}.{field.name}"):
                try:
                    yield name, replace(value, **{field.name: changed})
                except ConfigError:
                    continue
    else:
        for changed in other_values(value, path):
            yield f"{path} = {changed}", changed


def test_every_field_of_the_configuration_matters(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Description.config
    original = load(trial.located, attention.Explicit()).config
    survivors: list[str] = []
    for name, changed in mutants(original):
        if says_nothing(name, original, trial.head):
            continue
        monkeypatch.setattr(Description, "config", lambda *_, changed=changed: changed)
        if trial.error() <= trial.noticed:
            survivors.append(name)
    monkeypatch.setattr(Description, "config", read)
    assert survivors == []


def changed_rules(rule: KeyRule) -> list[KeyRule | None]:
    """A rule lost, or with its layout lost."""
    if isinstance(rule, Drop):
        return [None]
    plain = [] if isinstance(rule.layout, AsIs) else [replace(rule, layout=AsIs())]
    if isinstance(rule, Split) and rule.heads > 1:
        plain.append(replace(rule, heads=1))
    return [None, *plain]


def of_another_head(target: str, head: str | None) -> bool:
    return target.startswith("heads.") and not target.startswith(f"heads.{head}.")


def test_every_key_rule_matters(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    description = loading.describe(trial.located)
    reader = open_tensors(trial.located)
    rules = list(description.family.rules(description.config(reader)))
    own = [rule for rule in rules if not any(of_another_head(t, trial.head) for t in rule.targets)]
    used = {
        id(found.rule)
        for name in reader.names()
        if (found := match(own, name, description.family.prefix))
    }
    fill = loading.fill
    survivors: list[str] = []
    for place, rule in enumerate(rules):
        if id(rule) not in used:
            continue  # an older name, or another head's
        for changed in changed_rules(rule):
            table = [*rules[:place], *([changed] if changed else []), *rules[place + 1 :]]
            monkeypatch.setattr(
                loading, "fill", lambda m, r, _, *rest, t=table: fill(m, r, t, *rest)
            )
            if trial.error() <= trial.noticed:
                survivors.append(f"{rule} as {changed}")
    assert survivors == []


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def without_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.AttentionConfig, "score_scale", 1.0)


def without_causality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "within_reach", lambda *_: None)


def without_padding_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "allowed_keys", lambda *_: None)


def softmax_over_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "attention_weights", lambda scores, _: scores.softmax(-2))


def positions_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    of = attention.Padded.of

    def shifted(token_ids: Tensor, *rest: Any) -> attention.Padded:
        made = of(token_ids, *rest)
        return replace(made, positions=made.positions + 1)

    monkeypatch.setattr(attention.Padded, "of", shifted)


def rotation_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = attention.rotate
    monkeypatch.setattr(attention, "rotate", lambda x, cos, sin: rotate(x, cos, -sin))


def without_second_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    skip = blocks.Block.skip
    monkeypatch.setattr(
        blocks.Block,
        "skip",
        lambda block, x, part, norm, _: skip(block, x, part, norm, torch.nn.Identity()),
    )


def distances_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = relative.Buckets.forward
    monkeypatch.setattr(relative.Buckets, "forward", lambda self, d: buckets(self, -d))


BY_HAND: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("BERT", without_scale),
    ("BERT", without_padding_mask),
    ("BERT", softmax_over_queries),
    ("BERT", positions_shifted),
    ("Llama", without_causality),
    ("Llama", rotation_backwards),
    ("GPT-2", positions_shifted),
    ("GPT-2", without_causality),
    ("Gemma 2", without_second_norm),
    ("BART", without_scale),
    ("BART", without_causality),
    ("DeBERTa", distances_mirrored),
    ("T5", distances_mirrored),
    ("MPNet", distances_mirrored),
]


@pytest.mark.parametrize(
    ("name", "mutate"), BY_HAND, ids=[f"{name}, {mutate.__name__}" for name, mutate in BY_HAND]
)
def test_a_mutant_of_the_code_is_caught(
    name: str,
    mutate: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = case_named(name)
    ragged = case.lengths if mutate is without_padding_mask else None
    trial = Trial(case, main_head(case), tmp_path, ragged)
    mutate(monkeypatch)
    assert TOLERANCE < trial.error() < torch.inf  # another result, not a crash


def test_the_kinds_of_mutants_that_were_meant_are_among_them() -> None:
    """Another epsilon, erf for tanh, a shifted position, a missing scale."""
    trial = case_named("BERT")
    reference = trial.reference()
    config: TransformerConfig = loading.describe_config(reference.config.to_dict()).config(
        NoTensors()
    )
    names = [name for name, _ in mutants(config)]
    assert any(name.startswith(".norm.eps") for name in names)
    assert f".encoder.feed_forward.activation = {Activation.GELU_TANH}" in names
    assert any("position_offset" in name for name in names)
    assert any("embedding.scale" in name for name in names)


class NoTensors:
    """A checkpoint's tensors before there are any."""

    def names(self) -> list[str]:
        return []

    def shape(self, name: str) -> tuple[int, ...]:
        raise KeyError(name)

    def read(self, name: str) -> Tensor:
        raise KeyError(name)
