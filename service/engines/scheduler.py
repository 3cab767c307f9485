"""Which sequence runs when: slots, chunks of prefill, decoding. Counts and queues, no tensors."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Sequence:
    """One generation as the scheduler sees it.

    `cached` of its `prompt_tokens` are in the cache so far; once all are, it decodes.
    """

    prompt_tokens: int
    cached: int = 0
    slot: int | None = None

    @property
    def decodes(self) -> bool:
        """Whether its whole prompt is cached."""
        return self.cached >= self.prompt_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt tokens `start` to `stop` of a sequence, to be run in its slot."""

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

    A waiting sequence takes the lowest free slot, so that the rows in use stay dense and bind as
    one view. At most one chunk of prefill runs between two decoding steps, so that a long prompt
    doesn't stall the streams that run; chunk borders depend on the prompt alone.
    """

    slots: int
    chunk_tokens: int
    waiting: deque[Sequence] = field(default_factory=deque[Sequence])
    running: dict[int, Sequence] = field(default_factory=dict[int, Sequence])

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting

    @property
    def bound_rows(self) -> int:
        """Rows 0 to this (exclusive) hold every running sequence."""
        return max(self.running, default=-1) + 1

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind the others."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence; its slot is free at once."""
        if sequence.slot is not None:
            del self.running[sequence.slot]
            sequence.slot = None
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def admit(self) -> list[Sequence]:
        """Give free slots to those that waited longest."""
        admitted: list[Sequence] = []
        free = (slot for slot in range(self.slots) if slot not in self.running)
        for slot in list(free)[: len(self.waiting)]:
            sequence = self.waiting.popleft()
            sequence.slot = slot
            self.running[slot] = sequence
            admitted.append(sequence)
        return admitted

    def next_chunk(self) -> Chunk | None:
        """The next chunk of the sequence that was admitted first among those in prefill."""
        for sequence in self.running.values():
            if not sequence.decodes:
                stop = min(sequence.cached + self.chunk_tokens, sequence.prompt_tokens)
                return Chunk(sequence, sequence.cached, stop)
        return None

    def decoding(self) -> list[Sequence]:
        """The sequences that get a token in the next step, by slot."""
        return [self.running[slot] for slot in sorted(self.running) if self.running[slot].decodes]
