"""Engines under the names they are served by: what the dialects ask, made of artifacts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from export.artifact import Artifact, ServedOutput
from export.session import Hardware
from model_core.tokenization import Tokenizer
from service.engines.batcher import Batcher
from service.engines.generation import GenerationEngine, Stream
from service.engines.pooling import sigmoid, softmax
from service.messages import Floats, ModelCard, Sampling, Task, TokenIds


@dataclass(frozen=True, slots=True)
class BatchedEmbedding:
    """An embedding model on a batcher that it may share with others of the same trunk."""

    card: ModelCard
    tokenizer: Tokenizer
    batcher: Batcher
    output: str

    async def embed(self, texts: Sequence[TokenIds]) -> Floats:
        """Vectors [N, D] in the order of `texts`."""
        return await self.batcher.run(texts, self.output)


@dataclass(frozen=True, slots=True)
class BatchedClassification:
    """A classification model on a batcher; `probabilities` makes them of its scores."""

    card: ModelCard
    tokenizer: Tokenizer
    batcher: Batcher
    output: str
    probabilities: Callable[[Floats], Floats]

    async def classify(self, texts: Sequence[TokenIds]) -> Floats:
        """Probabilities [N, C] in the order of `texts`."""
        return self.probabilities(await self.batcher.run(texts, self.output))


@dataclass(frozen=True, slots=True)
class SlottedGeneration:
    """A generation model on an engine of its own."""

    card: ModelCard
    tokenizer: Tokenizer
    engine: GenerationEngine

    def generate(self, prompt: TokenIds, sampling: Sampling) -> Stream:
        """Start at once; raises `Overloaded` when the queue is full."""
        return self.engine.generate(prompt, sampling)


def served_encoder(
    artifact: Artifact,
    served: ServedOutput,
    hardware: Hardware,
    tokenizer: Tokenizer,
    batcher: Batcher,
) -> BatchedEmbedding | BatchedClassification:
    """One output of an encoder: a classifier where it has labels, else an embedding model."""
    if not served.labels:
        dim = artifact.manifest.config["dim"]
        card = card_of(artifact, served, Task.EMBED, hardware, int(str(dim)))
        return BatchedEmbedding(card, tokenizer, batcher, served.output)
    card = card_of(artifact, served, Task.CLASSIFY, hardware)
    probabilities = sigmoid if served.multi_label else softmax
    return BatchedClassification(card, tokenizer, batcher, served.output, probabilities)


def card_of(
    artifact: Artifact,
    served: ServedOutput,
    task: Task,
    hardware: Hardware,
    embedding_dim: int | None = None,
    max_tokens: int | None = None,
) -> ModelCard:
    """What the manifest and the hardware say of a served model."""
    manifest = artifact.manifest
    figures = manifest.parity.model_dump(exclude_none=True, exclude={"processor"})
    return ModelCard(
        name=served.name,
        task=task,
        max_tokens=max_tokens or manifest.max_tokens,
        precision=manifest.precision,
        created=manifest.created,
        source=manifest.source,
        licence=manifest.licence,
        provider=hardware.provider,
        provider_reason=hardware.reason,
        embedding_dim=embedding_dim,
        labels=served.labels,
        parity=figures,
    )
