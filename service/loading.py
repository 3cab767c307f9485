"""From a model that is asked for to engines that run, once golden outputs are reproduced."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from export.artifact import (
    ENCODER_GRAPH,
    GRAPH,
    MANIFEST,
    VECTORS_OF_TOKENS,
    Artifact,
    ArtifactError,
    CacheLayout,
    Kind,
    sha256,
)
from export.session import (
    CachedSession,
    Hardware,
    Provider,
    Session,
    Sources,
    reproduces_golden,
    usable_cores,
)
from model_core.tokenization import Tokenizer
from service.engines.batcher import Batcher
from service.engines.constraint import Schemas
from service.engines.generation import GenerationEngine
from service.engines.scheduler import LONE_TOKENS, Scheduler
from service.engines.slots import Slots
from service.exporting import artifact_of
from service.inspection.loading import inspected_models
from service.inspection.model import InspectedModel
from service.messages import ModelCard, ServedModel, Task
from service.metrics import Metrics
from service.models import SlottedGeneration, card_of, served_encoder
from service.settings import ServiceSettings
from service.specs import ModelSpec


@dataclass(slots=True)
class Loaded:
    """A model whose engines run: what it serves, and how they are watched and ended; what of it may
    be looked into.

    `name` is the artifact's, or what it was asked to be called. `at_hand` says how many texts and
    generations its engines have to do.
    """

    spec: ModelSpec
    name: str
    served: list[ServedModel] = field(default_factory=list[ServedModel])
    inspected: list[InspectedModel] = field(default_factory=list[InspectedModel])
    watchers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    closers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    at_hand: Callable[[], int] = int

    def watch(self) -> None:
        """Let the metrics ask these engines, and no others of their names."""
        for watch in self.watchers:
            watch()

    def close(self) -> None:
        """End the engines; what they still have to do is refused."""
        for close in self.closers:
            close()
        self.closers.clear()

    def forget(self) -> None:
        """Let go of the engines, which have ended: their memory is free once nobody asks for it.

        The collector doesn't look at what was loaded at the start, so that no circle may be left.
        """
        self.served.clear()
        self.inspected.clear()
        self.watchers.clear()
        self.at_hand = int


def load(spec: ModelSpec, service: ServiceSettings, metrics: Metrics, hardware: Hardware) -> Loaded:
    """Export what is missing, verify the artifact, start its engines. Takes seconds or minutes.

    Raises `ArtifactError`, `ExportFailed`, and whatever the runtime raises for a graph that it
    can't read; nothing is left running then.
    """
    settings = spec.settings(service)
    artifact = opened(spec, settings, hardware)
    loaded = Loaded(spec, artifact.manifest.name)
    loader = Loader(settings, metrics, loaded)
    try:
        if artifact.manifest.kind is Kind.ENCODER:
            loader.add_encoder(artifact, hardware)
        else:
            loader.add_generator(artifact, hardware)
        if settings.inspect:
            loaded.inspected = inspected_models(artifact, settings, hardware)
    except BaseException:
        loaded.close()
        raise
    return loaded


def opened(spec: ModelSpec, settings: ServiceSettings, hardware: Hardware) -> Artifact:
    """The verified artifact of `spec`, under the name that it asks for.

    Raises `ArtifactError`, `ExportFailed`.
    """
    artifact = Artifact.open(artifact_of(spec.source, settings, hardware))
    if artifact.manifest.kind is Kind.INSPECTION:
        raise ArtifactError(
            f"{artifact.folder} is an inspection graph, which nothing serves: serve "
            f"{artifact.manifest.source} with --inspect, and it is found"
        )
    if spec.digest is not None:
        found = sha256(artifact.folder / MANIFEST)
        if found != spec.digest:
            raise ArtifactError(
                f"{artifact.folder / MANIFEST} has the sha256 {found}, asked for is {spec.digest}"
            )
    own = artifact.manifest.name
    return artifact if spec.name in (None, own) else renamed(artifact, spec.name)


def renamed(artifact: Artifact, name: str) -> Artifact:
    """The artifact with its own model called `name`, and what it brings along `name`-theirs."""
    manifest = artifact.manifest
    served = tuple(
        output.model_copy(
            update={"name": name if output.name == manifest.name else f"{name}-{output.name}"}
        )
        for output in manifest.served
    )
    changed = manifest.model_copy(update={"name": name, "served": served})
    return Artifact(artifact.folder, changed)


@dataclass(frozen=True, slots=True)
class Loader:
    """Makes the engines of one artifact, by the settings of its model, for `loaded`."""

    settings: ServiceSettings
    metrics: Metrics
    loaded: Loaded

    @property
    def threads(self) -> int:
        """How many cores computing may take."""
        return self.settings.threads or usable_cores()

    def session_of(
        self, artifact: Artifact, graph: str, hardware: Hardware, threads: int | None = None
    ) -> Session:
        """A session of one of the artifact's graphs that reproduced its golden outputs."""
        gib = self.settings.gpu_memory_gib
        session = Session(
            artifact.folder / graph,
            hardware.provider,
            threads or self.threads,
            None if gib is None else int(gib * 2**30),
        )
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
            max_wait_s=settings.max_queue_wait_s,
            observe=partial(self.metrics.batch, manifest.name),
            name=manifest.name,
            runners=runners,
            per_token={VECTORS_OF_TOKENS}
            | {served.output for served in manifest.served if served.per_token},
            run_alone=alone.run,
        )
        self.loaded.closers.append(batcher.close)
        self.loaded.at_hand = lambda: batcher.waiting
        self.loaded.watchers.append(
            lambda: self.metrics.watch_queue(
                manifest.name, lambda: batcher.waiting, lambda: batcher.waiting_tokens
            )
        )
        for served in manifest.served:
            model = served_encoder(artifact, served, hardware, tokenizer, batcher)
            self.serve(model, model.card)

    def add_generator(self, artifact: Artifact, hardware: Hardware) -> None:
        """A generation model on a pool of slots, with an encoder if it has one."""
        manifest, settings = artifact.manifest, self.settings
        capacity = min(settings.max_context, manifest.max_tokens)
        authors = manifest.generation
        own_context = manifest.max_tokens
        if manifest.kind is Kind.ENCODER_DECODER:
            own_context = max(own_context, authors.max_source_tokens)
        # Asked of this model; the service's own limit is that of whatever is served, and fits.
        asked = self.loaded.spec.model_dump(include={"max_context"})["max_context"] or 0
        if asked > own_context:
            raise ArtifactError(
                f"max_context is {asked}; {manifest.name} takes {own_context} tokens at most"
            )
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
            Slots(decoder, settings.slots, sources, settings.prefill_chunk),
            Scheduler(
                settings.slots,
                settings.prefill_chunk,
                settings.token_budget,
                lone_chunks=max(1, LONE_TOKENS // settings.prefill_chunk),
            ),
            tokenizer,
            ModelObserver(self.metrics, manifest.name),
            max_waiting=settings.max_queue_requests,
            max_waiting_tokens=settings.max_queue_prompt_tokens,
            max_wait_s=settings.max_queue_wait_s,
            name=manifest.name,
            own=own,
        )
        self.loaded.closers.append(engine.close)
        self.loaded.at_hand = lambda: engine.running + engine.waiting
        self.loaded.watchers.append(
            lambda: self.metrics.watch_generation(
                manifest.name,
                running=lambda: engine.running,
                waiting=lambda: engine.waiting,
                cache_use=lambda: engine.cache_use,
                slots_in_use=lambda: engine.slots_in_use,
                slots=settings.slots,
            )
        )
        card = replace(
            card_of(artifact, manifest.served[0], Task.GENERATE, hardware),
            max_tokens=capacity,
            max_beams=settings.slots,
            generation=own,
        )
        self.serve(SlottedGeneration(card, tokenizer, engine, Schemas(tokenizer)), card)

    def serve(self, model: ServedModel, card: ModelCard) -> None:
        """Add a model, which the metrics will tell of."""
        self.loaded.served.append(model)
        told = (card.name, card.task, card.precision, card.provider)
        self.loaded.watchers.append(lambda: self.metrics.watch_model(*told))
        self.metrics.loaded(card.name)


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

    def prefix_hit(self, tokens: int) -> None:
        """A generation began with so many tokens of its prompt in the cache."""
        self.metrics.prefix_hit(self.model, tokens)

    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None:
        """A generation ended for `reason`."""
        self.metrics.finished(self.model, reason, prompt_tokens, generated_tokens)
