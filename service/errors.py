"""Domain errors. They know no HTTP: `service/api/errors.py` maps each to a status and a body."""

from collections.abc import Sequence
from copy import copy
from typing import Self


class AnatomyError(Exception):
    """Base of every error that a user may see. `field` names the part of the request at fault."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(AnatomyError):
    """A value that is not accepted; the message has the value and what is accepted."""


class TooManyTokens(InvalidRequest):
    """An input longer than the model takes; the message has both counts."""


class SchemaTooComplex(InvalidRequest):
    """A schema that can't be followed within bounds, which may show when the text has begun."""


class InspectionOff(AnatomyError):
    """The model can't be looked into, for nobody switched that on; the message says how."""


class BodyTooLarge(AnatomyError):
    """A request body over the limit."""


class UnknownModel(AnatomyError):
    """A model name that this service does not have, or has for another task."""


class UnusableModel(AnatomyError):
    """A model that was to be loaded can't be; whatever was served is served still."""


class Conflict(AnatomyError):
    """A change that doesn't fit what there is now, or another change that is under way."""


class Overloaded(AnatomyError):
    """A queue is full. `retry_after_s` is when room is expected, in seconds (at least 1)."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(AnatomyError):
    """The request took longer than it may; what was left of it was dropped."""


class NotReady(AnatomyError):
    """The service is starting or stopping."""


class EngineFailure(AnatomyError):
    """The model failed; the request may be tried again.

    `item` is the one of a request's items that it failed on, counted from 0, if that is known.
    """

    def __init__(self, message: str, *, field: str | None = None, item: int | None = None) -> None:
        super().__init__(message, field=field)
        self.item = item

    def named(self, names: Sequence[str]) -> Self:
        """The same, with what the request calls its items in the message."""
        if self.item is None or self.item >= len(names):
            return self
        found = self.of(names[self.item])
        found.field = names[self.item]
        return found

    def of(self, what: str) -> Self:
        """The same, with what failed before the message."""
        found = copy(self)
        found.message = f"{what}: {self.message}"
        found.args = (found.message,)
        return found


class NotFinite(EngineFailure):
    """The model gave a value that is not finite."""
