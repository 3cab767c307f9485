"""What workers of a run have to say to the process that started them, and it to them.

An actor of Ray (`workers.py`), which is here by itself so that it starts without torch; what passes
through it is plain data.
"""

from typing import Any


class Desk:
    """Where workers leave events, and are told to stop."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.is_stopped = False
        self.error = ""

    def post(self, kind: str, what: Any) -> None:
        """Leave an event; the first "error" is kept."""
        if kind == "error":
            self.error = self.error or str(what)
        self.events.append((kind, what))

    def take(self) -> list[tuple[str, Any]]:
        """All events that nobody took yet."""
        events, self.events = self.events, []
        return events

    def stop(self) -> None:
        """Tell all to stop after their step."""
        self.is_stopped = True

    def is_stopping(self) -> bool:
        """Whether all are to stop."""
        return self.is_stopped

    def failed(self) -> str:
        """What went wrong for good, if anything did."""
        return self.error
