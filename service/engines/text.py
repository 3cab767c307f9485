"""From sampled tokens to text that is final: whole characters, and no part of a stop string."""

from collections.abc import Sequence

from model_core.tokenization import DecodeStream


class TextStream:
    """Text of a generation as it becomes certain.

    Holds back what may still turn out to be the beginning of one of the `stop` strings.
    """

    def __init__(self, stream: DecodeStream, stop: Sequence[str]) -> None:
        self._stream = stream
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """The text that is final with this token; sets `stopped` when a stop string is complete."""
        return self._release(self._stream.push(token_id))

    def flush(self) -> str:
        """The rest, once no token follows."""
        text = self._release(self._stream.flush())
        if self.stopped:
            return text
        rest, self._held = self._held, ""
        return text + rest

    def _release(self, new: str) -> str:
        if not self._stop:
            return new
        self._held += new
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            final, self._held = self._held[: min(found)], ""
            return final
        keep = max(overlap(self._held, stop) for stop in self._stop)
        cut = len(self._held) - keep
        final, self._held = self._held[:cut], self._held[cut:]
        return final


def overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
