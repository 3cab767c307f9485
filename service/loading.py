"""From settings to a registry of served models, ready once their golden outputs are reproduced."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from export.artifact import (
    ENCODER_GRAPH,
    GRAPH,
    VECTORS_OF_TOKENS,
    Artifact,
    ArtifactError,
    CacheLayout,
    Kind,
)
from export.session import (
    CachedSession,
    Hardware,
    Provider,
    Session,
    Sources,
    find_hardware,
    reproduces_golden,
    usable_cores,
)
from model_core.tokenization import Tokenizer
from service.engines.batcher import Batcher
from service.engines.constraint import Schemas
from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.exporting import artifact_of
from service.inspection.loading import inspected_models
from service.messages import Task
from service.metrics import Metrics
from service.models import BatchedEmbedding, SlottedGeneration, card_of, served_encoder
from service.registry import Registry
from service.settings import ServiceSettings


@dataclass(slots=True)
class ModelGroup:
    """The models of one replica: loads them into `registry`, and closes their engines."""

    settings: ServiceSettings
    registry: Registry
    metrics: Metrics
    closers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Loads before the first request, closes after the last."""
        try:
            await asyncio.to_thread(self.load)
            yield
        finally:
            await asyncio.to_thread(self.close)

    def load(self) -> None:
        """Export what is missing, load everything, and only then be ready.

        Raises `ArtifactError`, `ExportFailed`, or `ValueError` for a name that is taken twice.
        """
        hardware = find_hardware()
        for model in self.settings.models:
            artifact = Artifact.open(artifact_of(model, self.settings, hardware))
            if artifact.manifest.kind is Kind.ENCODER:
                self.add_encoder(artifact, hardware)
            else:
                self.add_generator(artifact, hardware)
            if self.settings.inspect:
                for model in inspected_models(artifact, self.settings, hardware):
                    self.registry.add_inspected(model)
        # What has been loaded stays: the collector need not walk through it again.
        gc.collect()
        gc.freeze()
        self.registry.ready = True

    def close(self) -> None:
        """Refuse new work, end what waits, stop the engines' threads."""
        self.registry.ready = False
        for close in self.closers:
            close()
        self.closers.clear()

    @property
    def threads(self) -> int:
        """How many cores computing may take."""
        return self.settings.threads or usable_cores()

    def session_of(
        self, artifact: Artifact, graph: str, hardware: Hardware, threads: int | None = None
    ) -> Session:
        """A session of one of the artifact's graphs that reproduced its golden outputs."""
        session = Session(artifact.folder / graph, hardware.provider, threads or self.threads)
        reproduces_golden(artifact, session, graph)
        return session

    def add_encoder(self, artifact: Artifact, hardware: Hardware) -> None:
        """All outputs of an encoder, on one batcher: they share the trunk and its batches."""
        manifest, settings = artifact.manifest, self.settings
        # On the CPU a batch for each core, rather than a batch that all cores share: they need not
        # wait for one another after each operator, nor for whatever else takes one of the cores.
        # A text that comes alone has all cores, by a session of its own: the file of weights is
        # mapped once for both.
        runners = self.threads if hardware.provider is Provider.CPU else 1
        session = self.session_of(artifact, GRAPH, hardware, self.threads // runners)
        alone = self.session_of(artifact, GRAPH, hardware) if runners > 1 else session
        tokenizer = Tokenizer.load(artifact.folder)
        batcher = Batcher(
            session.run,
            token_types="token_type_ids" in manifest.inputs,
            budget=settings.token_budget,
            max_queue_tokens=settings.max_queue_tokens,
            observe=partial(self.metrics.batch, manifest.name),
            name=manifest.name,
            runners=runners,
            per_token=(VECTORS_OF_TOKENS,),
            run_alone=alone.run,
        )
        self.closers.append(batcher.close)
        self.metrics.watch_queue(manifest.name, lambda: batcher.waiting)
        for served in manifest.served:
            model = served_encoder(artifact, served, hardware, tokenizer, batcher)
            if isinstance(model, BatchedEmbedding):
                self.registry.add_embedding(model)
            else:
                self.registry.add_classification(model)

    def add_generator(self, artifact: Artifact, hardware: Hardware) -> None:
        """A generation model on a pool of slots, with an encoder if it has one."""
        manifest, settings = artifact.manifest, self.settings
        capacity = min(settings.max_context, manifest.max_tokens)
        authors = manifest.generation
        longest = min(settings.max_context, authors.max_source_tokens)
        beams = min(settings.slots, authors.beams)
        own = authors.model_copy(update={"max_source_tokens": longest, "beams": beams})
        sources = None
        if manifest.kind is Kind.ENCODER_DECODER:
            encoder = self.session_of(artifact, ENCODER_GRAPH, hardware)
            cross = required(artifact, manifest.cross, "cross")
            sources = Sources(encoder, cross, settings.slots, longest)
        session = self.session_of(artifact, GRAPH, hardware)
        cache = required(artifact, manifest.cache, "cache")
        decoder = CachedSession(session, cache, settings.slots, capacity, sources)
        tokenizer = Tokenizer.load(artifact.folder)
        engine = GenerationEngine(
            Slots(decoder, settings.slots, sources),
            Scheduler(settings.slots, settings.prefill_chunk, settings.token_budget),
            tokenizer,
            ModelObserver(self.metrics, manifest.name),
            max_waiting=settings.max_queue_requests,
            name=manifest.name,
            own=own,
        )
        self.closers.append(engine.close)
        self.metrics.watch_generation(
            manifest.name,
            running=lambda: engine.running,
            waiting=lambda: engine.waiting,
            cache_use=lambda: engine.cache_use,
        )
        card = replace(
            card_of(artifact, manifest.served[0], Task.GENERATE, hardware),
            max_tokens=capacity,
            max_beams=settings.slots,
            generation=own,
        )
        self.registry.add_generation(SlottedGeneration(card, tokenizer, engine, Schemas(tokenizer)))


def required(artifact: Artifact, layout: CacheLayout | None, what: str) -> CacheLayout:
    """A layout that the manifest of such an artifact has."""
    if layout is None:
        raise ArtifactError(f"{artifact.folder}: the manifest of a generator needs {what}")
    return layout


@dataclass(frozen=True, slots=True)
class ModelObserver:
    """The metrics of one generation model."""

    metrics: Metrics
    model: str

    def first_token(self, seconds: float) -> None:
        """A generation got its first token `seconds` after it was submitted."""
        self.metrics.first_token(self.model, seconds)

    def inter_token(self, seconds: float) -> None:
        """A generation ended; the mean time between its tokens."""
        self.metrics.inter_token(self.model, seconds)

    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None:
        """A generation ended for `reason`."""
        self.metrics.finished(self.model, reason, prompt_tokens, generated_tokens)
