"""Where a run starts: a model with random weights or a checkpoint's, and its tokenizer.

And what goes beside the weights when it is saved: the files of the vocabulary, the licence.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn

from model_core.attention import Fused
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import (
    Description,
    assemble,
    describe,
    describe_config,
    load,
)
from model_core.checkpoints.sources import UNKNOWN_LICENCE, Located, locate
from model_core.heads import TransformerWithHeads
from model_core.tokenization import Tokenizer
from model_core.training.errors import TrainingError
from model_core.training.fewer_layers import with_layers_left_out
from model_core.training.low_rank import adapt
from model_core.training.order import generator_of
from model_core.training.run_folder import RunFolder
from model_core.training.runs import DistillableRun, Run
from model_core.training.vocabulary import Conventions, learn_vocabulary, write_vocabulary

VOCABULARY_FOLDER: Final = "tokenizer"
# Of a checkpoint's files at its root: what a tokenizer is read from, how text is generated, and on
# what terms all of it may be used.
TERMS: Final = ("LICENSE", "LICENCE", "NOTICE")
KEPT_SUFFIXES: Final = frozenset({".json", ".txt", ".model", ".spm", ".jinja"})
NOT_KEPT: Final = frozenset({
    "config.json", "model.safetensors.index.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "README.md",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """A model to train, and all that its checkpoint needs beside its weights.

    `description` has the fields of `config.json`; `files` are copied into every checkpoint, by
    name; `licence` is that of what was loaded; `head` is the one that is trained, if any;
    `teacher` the checkpoint with all its layers, where a model with fewer learns from it.
    """

    model: TransformerWithHeads
    description: Description
    tokenizer: Tokenizer
    files: Mapping[str, Path]
    licence: str
    head: str | None
    teacher: "Start | None" = None

    @property
    def max_tokens(self) -> int:
        """How many tokens a text may have: the positions of the stack that has the fewest."""
        stacks = self.model.transformer.config.stacks
        return min(stack.embedding.max_positions for stack in stacks)


class NoTensors:
    """A checkpoint that holds nothing: what is left open by a configuration is as usual."""

    def names(self) -> list[str]:
        return []

    def shape(self, name: str) -> tuple[int, ...]:
        raise CheckpointError(f"there is no tensor {name!r}")

    def read(self, name: str) -> torch.Tensor:
        raise CheckpointError(f"there is no tensor {name!r}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a recipe needs of a model: a head by its name in the families (None: no head), the
    conventions of a new vocabulary, and a classifier's labels."""

    head: str | None
    conventions: Conventions
    labels: tuple[str, ...] = ()
    multi_label: bool = False


def start(run: Run, wanted: Wanted, texts: Iterable[str], output: Path, cache: Path) -> Start:
    """The model that `run` starts from, in training mode, with the head that is wanted.

    `texts` are what a new vocabulary is made of; it goes to a folder of `output`, from where a run
    that goes on reads it. Raises `TrainingError` or what reading a checkpoint raises.
    """
    if run.model.source is not None:
        return from_checkpoint(run, wanted, locate(run.model.source, cache=cache))
    if run.tokenizer.folder is not None:
        return from_scratch(run, wanted, run.tokenizer.folder)
    folder = output / VOCABULARY_FOLDER
    if RunFolder(output).newest_state() is None:
        backend = learn_vocabulary(run.tokenizer.recipe(), texts, wanted.conventions)
        folder.mkdir(parents=True, exist_ok=True)
        write_vocabulary(backend, wanted.conventions, folder)
    return from_scratch(run, wanted, folder)


def from_scratch(run: Run, wanted: Wanted, folder: Path) -> Start:
    """A model of the stated architecture, for the vocabulary in `folder`."""
    if not folder.is_dir():
        raise TrainingError(f"tokenizer.folder is {folder}, which is no folder")
    files = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and is_kept(path.name)
    }
    tokenizer = Tokenizer.from_files(files)
    stated = dict(run.model.architecture or {})
    values = {"vocab_size": tokenizer.vocab_size, **stated, **special_ids(tokenizer, wanted)}
    description = labelled(describe_config(values), wanted)
    config = description.config(NoTensors())
    vocab_size = min(stack.embedding.vocab_size for stack in config.stacks)
    if vocab_size < tokenizer.vocab_size:
        raise TrainingError(
            f"model.architecture has a vocab_size of {vocab_size}, but the tokenizer has "
            f"{tokenizer.vocab_size} tokens; leave it out to have as many"
        )
    heads = () if wanted.head is None else (wanted.head,)
    model = assemble(config, description, Fused(), heads)
    initialize(model, run.training.seed)
    return Start(model.train(), description, tokenizer, files, UNKNOWN_LICENCE, wanted.head)


def special_ids(tokenizer: Tokenizer, wanted: Wanted) -> dict[str, Any]:
    """The fields of `config.json` that name tokens, as a vocabulary of ours has them."""
    fields: dict[str, Any] = {"pad_token_id": tokenizer.pad_id}
    if tokenizer.eos_ids:
        fields["eos_token_id"] = min(tokenizer.eos_ids)
        fields["bos_token_id"] = tokenizer.bos_id
    if wanted.head == "seq2seq":
        fields["decoder_start_token_id"] = tokenizer.bos_id
        fields["is_encoder_decoder"] = True
    return fields


def from_checkpoint(run: Run, wanted: Wanted, located: Located) -> Start:
    """A checkpoint's model; its own head where it was saved with the one that is wanted."""
    if located.gguf is not None:
        raise TrainingError(
            f"{located.source} is a GGUF file, whose weights are rounded; train from a folder "
            "with safetensors"
        )
    stated = describe(located)
    tokenizer = Tokenizer.from_files(located.files)
    files = {
        name: path for name, path in located.files.items() if "/" not in name and is_kept(name)
    }
    new: nn.Module | None = None
    if wanted.head is None or keeps_head(stated, wanted):
        heads = () if wanted.head is None else (wanted.head,)
        loaded = load(located, Fused(), heads)
        model, description = loaded.model, loaded.description
    else:
        loaded = load(located, Fused())
        description = labelled(loaded.description, wanted)
        new = with_head(description, wanted.head, loaded.model, run.training.seed)
        model = TransformerWithHeads(loaded.model.transformer, {wanted.head: new})
    model.requires_grad_(True)
    begun = Start(model.train(), description, tokenizer, files, located.licence, wanted.head)
    if run.lora is not None:
        adapt(model, run.lora, run.training.seed, new)
    distillation = run.distillation if isinstance(run, DistillableRun) else None
    if distillation is None:
        return begun
    if new is not None:
        raise TrainingError(
            f"{located.source} has no {str(wanted.head).replace('_', ' ')} for this data, so there "
            "is nothing to learn from it; train one first, without distillation"
        )
    model, description = with_layers_left_out(model, description, distillation.layers, NoTensors())
    return replace(begun, model=model.train(), description=description, teacher=begun)


def is_kept(name: str) -> bool:
    """Whether a file of a checkpoint belongs to what is trained from it."""
    has_terms = name.startswith(TERMS)
    return has_terms or (Path(name).suffix in KEPT_SUFFIXES and name not in NOT_KEPT)


def keeps_head(stated: Description, wanted: Wanted) -> bool:
    """Whether a checkpoint has the head that is wanted, for the same labels."""
    head = stated.family.heads.get(wanted.head or "")
    if head is None or head.architecture not in stated.architectures:
        return False
    return not wanted.labels or (stated.labels, stated.multi_label) == (
        wanted.labels,
        wanted.multi_label,
    )


def with_head(
    description: Description, name: str, model: TransformerWithHeads, seed: int
) -> nn.Module:
    """A new head on a model that was loaded without one."""
    require_head(description, name)
    head = description.family.heads[name].build(model.transformer, len(description.labels))
    own = {id(parameter) for parameter in model.transformer.parameters()}
    initialize(head, seed, besides=own)
    return head


def require_head(description: Description, name: str) -> None:
    """Refuse a family that doesn't have the head, naming those it has."""
    available = description.family.heads
    if name not in available:
        raise TrainingError(
            f"{description.family.title} has no {name.replace('_', ' ')} head; "
            f"it has: {', '.join(available) or 'none'}"
        )


def labelled(description: Description, wanted: Wanted) -> Description:
    """The description of a model with the labels that are wanted."""
    if wanted.head is not None:
        require_head(description, wanted.head)
    if not wanted.labels:
        return description
    values = {
        **description.values,
        "id2label": {str(number): label for number, label in enumerate(wanted.labels)},
        "label2id": {label: number for number, label in enumerate(wanted.labels)},
        "num_labels": len(wanted.labels),
        "problem_type": f"{'multi' if wanted.multi_label else 'single'}_label_classification",
    }
    return replace(description, values=values, labels=wanted.labels, multi_label=wanted.multi_label)


@torch.no_grad()
def initialize(module: nn.Module, seed: int, besides: frozenset[int] | set[int] = frozenset()):
    """Random weights: normal with variance 2/(5·d), d the width that a matrix reads, biases zero.

    "Small init" of Nguyen & Salazar 2019 (section 3.2), which at d = 768 is GPT's 0.02. What leads
    back into the residual stream is divided by √(2·layers) too (Radford et al. 2019). Norms stay
    as they are made, and parameters whose ids are in `besides`.
    """
    generator = generator_of(seed, "weights")
    done = set(besides)
    named = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    names = list(named)
    layers = sum(name.endswith(".feed_forward") for name, _ in names)
    for name, part in names:
        if not isinstance(part, nn.Linear | nn.Embedding):
            continue
        is_exit = name.endswith(("attention.output", "feed_forward.down"))
        scale = (2 * layers) ** -0.5 if is_exit and layers else 1.0
        for own in part.parameters(recurse=False):
            # A tied matrix has been drawn already; the bias beside it hasn't.
            if id(own) in done:
                continue
            done.add(id(own))
            if own.dim() == 1:
                own.zero_()
            else:
                own.normal_(0.0, (2 / (5 * own.shape[1])) ** 0.5 * scale, generator=generator)
