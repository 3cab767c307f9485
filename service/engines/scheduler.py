"""Which sequence runs when: slots, sources, chunks of prefill, decoding. Counts, no tensors."""

from bisect import insort
from dataclasses import dataclass, field

LONE_TOKENS = 256
"""How many tokens of a prompt run at once while nobody decodes: more gain nothing."""


@dataclass(eq=False, slots=True)
class Sequence:
    """One generation as the scheduler sees it.

    `cached` of its `prompt_tokens` are in the cache so far; the last of them decodes, as every
    token after it. `to_encode` are the tokens of a source that the encoder has yet to read. A beam
    search takes `width` slots; its prompt is cached in the first of them. `chunk_tokens` bounds
    its chunks where they cost more than others. Who has a lower `place` in the queue comes first.
    """

    prompt_tokens: int
    to_encode: int = 0
    width: int = 1
    chunk_tokens: int | None = None
    place: float = 0.0
    cached: int = 0
    slots: tuple[int, ...] = ()

    @property
    def in_prefill(self) -> bool:
        """Whether more of its prompt is to be cached than a decoding step takes."""
        return not self.to_encode and self.cached < self.prompt_tokens - 1

    @property
    def decodes(self) -> bool:
        """Whether it gets a token in the next step."""
        return not self.to_encode and self.cached >= self.prompt_tokens - 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt tokens `start` to `stop` of a sequence, to be run in its first slot."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def completes(self) -> bool:
        """Whether it is the last of the prompt, so that a token can be sampled after it."""
        return self.stop == self.sequence.prompt_tokens


@dataclass(slots=True)
class Scheduler:
    """Iteration-level scheduling (Yu et al. 2022) over `slots` rows of a cache.

    A waiting sequence takes the lowest free slots, so that the rows in use stay dense and bind as
    one view; one that needs more than are free is waited for, so that narrow ones don't pass it
    for ever. Between two decoding steps at most `source_tokens` of sources are encoded and one
    chunk of prefill runs, so that neither stalls the streams that run; while nobody decodes,
    `lone_chunks` of them at once. Borders lie at whole chunks from a prompt's beginning on, and
    its tail runs by itself: a chunk more or less in one run changes no bit of what it writes.
    """

    slots: int
    chunk_tokens: int
    source_tokens: int = 512
    lone_chunks: int = 1
    waiting: list[Sequence] = field(default_factory=list["Sequence"])
    running: dict[int, Sequence] = field(default_factory=dict[int, Sequence])

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting

    @property
    def bound_rows(self) -> int:
        """Rows 0 to this (exclusive) hold every running sequence."""
        return max(self.running, default=-1) + 1

    @property
    def admitted(self) -> list[Sequence]:
        """The running sequences, the first admitted first."""
        return list(dict.fromkeys(list(self.running.values())))

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence at its place, behind its equals; its width is at most `slots`."""
        insort(self.waiting, sequence, key=lambda other: other.place)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence; its slots are free at once."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        for slot in sequence.slots:
            del self.running[slot]
        sequence.slots = ()

    def admit(self) -> list[Sequence]:
        """Give free slots to those whose turn it is."""
        admitted: list[Sequence] = []
        free = [slot for slot in range(self.slots) if slot not in self.running]
        while self.waiting and self.waiting[0].width <= len(free):
            sequence = self.waiting.pop(0)
            sequence.slots = tuple(free[: sequence.width])
            del free[: sequence.width]
            self.running |= dict.fromkeys(sequence.slots, sequence)
            admitted.append(sequence)
        return admitted

    def next_sources(self) -> list[Sequence]:
        """The sequences whose sources are encoded now: in order, up to the budget, one at least."""
        chosen: list[Sequence] = []
        left = self.source_tokens
        for sequence in self.admitted:
            if sequence.to_encode and (sequence.to_encode <= left or not chosen):
                chosen.append(sequence)
                left -= sequence.to_encode
            elif sequence.to_encode:
                break
        return chosen

    def next_chunk(self) -> Chunk | None:
        """The next chunk of the sequence that was admitted first among those in prefill; several
        in one where nobody decodes meanwhile.
        """
        for sequence in self.admitted:
            if sequence.in_prefill:
                return Chunk(sequence, sequence.cached, self._stop_of(sequence))
        return None

    def _stop_of(self, sequence: Sequence) -> int:
        size, end = self.chunk_tokens, sequence.prompt_tokens
        if sequence.chunk_tokens is not None:
            return min(sequence.cached + min(size, sequence.chunk_tokens), end)
        at_once = size if self.decoding() else size * self.lone_chunks
        # What is left behind the last whole chunk runs by itself, whoever else is there.
        whole = end - end % size
        return end if sequence.cached >= whole else min(sequence.cached + at_once, whole)

    def decoding(self) -> list[Sequence]:
        """The sequences that get a token in the next step, the first admitted first."""
        return [sequence for sequence in self.admitted if sequence.decodes]
