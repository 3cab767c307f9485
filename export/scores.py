"""What a head gives that scores texts or tokens: under which labels, and what becomes of it."""

from collections.abc import Mapping

from torch import nn

from export.artifact import Scoring, ServedOutput
from export.catalogue import ExtraHead
from export.graphs import TextOutput
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.load import Description, read_json
from model_core.checkpoints.readers import SafetensorsReader
from model_core.checkpoints.sentence_transformers import read_score_activation
from model_core.checkpoints.sources import Located
from model_core.heads import Classifier
from model_core.pooling import SentenceEmbedder
from model_core.sentence_config import SentenceConfig, VectorActivation

CLASS_SCORES = "class_scores"
SCORES_OF_TOKENS = "token_scores"

SCORINGS: Mapping[VectorActivation, Scoring] = {
    VectorActivation.IDENTITY: Scoring.IDENTITY,
    VectorActivation.SIGMOID: Scoring.SIGMOID,
}


def score_output(head: nn.Module) -> TextOutput:
    """The scores of a checkpoint's own head: of each text, or of every token."""
    mode = head.pooling if isinstance(head, Classifier) else None
    if mode is None:
        return TextOutput(SCORES_OF_TOKENS, None, head)
    return TextOutput(CLASS_SCORES, SentenceEmbedder(SentenceConfig((mode,), ())), head)


def served_scores(
    name: str, output: TextOutput, description: Description, scoring: Scoring
) -> ServedOutput:
    """A checkpoint's own head with the labels of its config."""
    is_classifier = isinstance(output.head, Classifier)
    labels = description.labels if is_classifier else ()
    if isinstance(output.head, Classifier) and output.head.output.out_features == 1 and not labels:
        labels = ("score",)  # one that needs no name: ELECTRA's of a token that was replaced
    if is_classifier and not labels:
        raise CheckpointError("the checkpoint is a classifier, but config.json has no id2label")
    return ServedOutput(
        name=name,
        output=output.name,
        labels=labels,
        scoring=scoring,
        per_token=output.per_token,
    )


def scoring_of(description: Description, located: Located) -> Scoring:
    """What becomes of the head's scores: as a cross-encoder says, else as its labels exclude one
    another or not."""
    stated = read_score_activation(located)
    if stated is not None and stated not in SCORINGS:
        raise CheckpointError(
            f"a cross-encoder's activation {stated} is not supported; accepted: "
            f"{', '.join(SCORINGS)}"
        )
    if stated is not None:
        return SCORINGS[stated]
    if description.values.get("problem_type") == "regression":
        return Scoring.IDENTITY
    # A single score says yes or no by itself; a softmax over it would always say 1.
    alone = len(description.labels) == 1
    return Scoring.SIGMOID if description.multi_label or alone else Scoring.SOFTMAX


def read_head(extra: ExtraHead, dim: int) -> tuple[nn.Module, tuple[str, ...]]:
    """A head trained on frozen embeddings, and its labels."""
    labels = tuple(read_json(extra.folder / "head.json")["labels"])
    head = Classifier(dim, len(labels))
    tensors = SafetensorsReader({"model.safetensors": extra.folder / "head.safetensors"})
    head.load_state_dict({name: tensors.read(name) for name in tensors.names()})
    return head.eval(), labels
