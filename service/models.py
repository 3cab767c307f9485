"""Engines under the names they are served by: what the dialects ask, made of artifacts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from export.artifact import (
    VECTORS_OF_TOKENS,
    Artifact,
    ArtifactError,
    Manifest,
    Scoring,
    ServedOutput,
)
from export.session import Hardware
from model_core.tokenization import Tokenizer
from service.engines.batcher import Batcher
from service.engines.constraint import Schema, Schemas
from service.engines.generation import GenerationEngine
from service.engines.pooling import sigmoid, softmax
from service.engines.stream import Stream
from service.messages import (
    ANY_TERMS,
    Computed,
    Floats,
    Inputs,
    ModelCard,
    Sampling,
    Task,
    Terms,
    TokenIds,
)


@dataclass(frozen=True, slots=True)
class BatchedEmbedding:
    """An embedding model on a batcher that it may share with others of the same trunk.

    `output` has its vectors, `token_output` those of every token.
    """

    card: ModelCard
    tokenizer: Tokenizer
    batcher: Batcher
    output: str
    token_output: str

    def require_room(self, items: int) -> None:
        """Raises `Overloaded` when so many texts can't wait."""
        self.batcher.require_room(items)

    async def embed(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        """Vectors [N, D] in the order of `texts`."""
        return stacked(await self.batcher.run(Inputs.whole(texts), self.output, terms))

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[list[Floats]]:
        """A vector of every token, [T, D] for each of `texts`."""
        return await self.batcher.run(Inputs.whole(texts), self.token_output, terms)


@dataclass(frozen=True, slots=True)
class BatchedClassification:
    """A classification model on a batcher; `probabilities` makes them of its scores."""

    card: ModelCard
    tokenizer: Tokenizer
    batcher: Batcher
    output: str
    probabilities: Callable[[Floats], Floats]

    def require_room(self, items: int) -> None:
        """Raises `Overloaded` when so many texts can't wait."""
        self.batcher.require_room(items)

    async def classify(
        self, inputs: Inputs, *, raw: bool = False, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        """Probabilities [N, C] in the order of the items, or the head's own scores."""
        found = stacked(await self.batcher.run(inputs, self.output, terms))
        return found if raw else replace(found, values=self.probabilities(found.values))


def stacked(found: Computed[list[Floats]]) -> Computed[Floats]:
    """Rows of one shape as one array."""
    return Computed(np.stack(found.values), found.queue_s, found.run_s, found.texts, found.tokens)


@dataclass(frozen=True, slots=True)
class SlottedGeneration:
    """A generation model on an engine of its own."""

    card: ModelCard
    tokenizer: Tokenizer
    engine: GenerationEngine
    schemas: Schemas

    def schema(self, schema: Mapping[str, Any], *, field: str) -> Schema:
        """A JSON schema that generations can follow. Raises `InvalidRequest` for `field`."""
        return self.schemas.compile(schema, field=field)

    def require_room(self, items: int) -> None:
        """Raises `Overloaded` when so many prompts can't wait."""
        self.engine.require_room(items)

    def generate(self, prompt: TokenIds, sampling: Sampling, *, terms: Terms = ANY_TERMS) -> Stream:
        """Start at once; raises `Overloaded` when the queue is full or the wait too long."""
        return self.engine.generate(prompt, sampling, terms)


def served_encoder(
    artifact: Artifact,
    served: ServedOutput,
    hardware: Hardware,
    tokenizer: Tokenizer,
    batcher: Batcher,
) -> BatchedEmbedding | BatchedClassification:
    """One output of an encoder: an embedding model where it gives vectors, else a classifier.

    Raises `ArtifactError` for scores of every token, which no route gives yet.
    """
    if served.per_token:
        raise ArtifactError(
            f"{artifact.folder}: {served.name!r} gives scores of every token of a text "
            f"({served.output}); only embeddings and scores of texts are served"
        )
    if served.dim is not None:
        card = card_of(artifact, served, Task.EMBED, hardware)
        return BatchedEmbedding(card, tokenizer, batcher, served.output, VECTORS_OF_TOKENS)
    card = card_of(artifact, served, Task.CLASSIFY, hardware)
    probabilities = PROBABILITIES[served.scoring]
    return BatchedClassification(card, tokenizer, batcher, served.output, probabilities)


PROBABILITIES: Mapping[Scoring, Callable[[Floats], Floats]] = {
    Scoring.SOFTMAX: softmax,
    Scoring.SIGMOID: sigmoid,
    Scoring.IDENTITY: lambda scores: scores,
}


def card_of(
    artifact: Artifact,
    served: ServedOutput,
    task: Task,
    hardware: Hardware,
) -> ModelCard:
    """What the manifest and the hardware say of a served model."""
    manifest = artifact.manifest
    sentence = manifest.sentence
    figures = manifest.parity.model_dump(exclude_none=True, exclude={"processor"})
    return ModelCard(
        name=served.name,
        task=task,
        max_tokens=manifest.max_tokens,
        precision=manifest.precision,
        created=manifest.created,
        source=manifest.source,
        licence=manifest.licence,
        provider=hardware.provider,
        provider_reason=hardware.reason,
        embedding_dim=served.dim,
        pooling="+".join(sentence.pooling) if sentence and task is Task.EMBED else "",
        prompt=prompt_of(manifest) if task is Task.EMBED else "",
        prompts=prompts_of(manifest) if task is Task.EMBED else {},
        labels=served.labels,
        ranks=task is Task.CLASSIFY and len(served.labels) == 1,
        generation=manifest.generation,
        parity=figures,
    )


def prompts_of(manifest: Manifest) -> dict[str, str]:
    """What an embedding model's authors have put before texts of some kinds, by the kind's name."""
    return {} if manifest.sentence is None else manifest.sentence.prompts


def prompt_of(manifest: Manifest) -> str:
    """What an embedding model's authors want before every text."""
    sentence = manifest.sentence
    if sentence is None or sentence.default_prompt is None:
        return ""
    return sentence.prompts[sentence.default_prompt]
