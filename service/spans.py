"""Texts as tokens that know their places in them, whole or cut at an end."""

from dataclasses import dataclass, replace

from model_core.tokenization import Span
from service.messages import Inputs


@dataclass(frozen=True, slots=True)
class SpannedTexts:
    """Texts as token ids, and for each its tokens with their places in the text."""

    inputs: Inputs
    spans: list[list[Span]]


def moved(span: Span, characters: int) -> Span:
    """A token so many characters further on; one that frames the text stands nowhere."""
    if not characters or span.start is None or span.stop is None:
        return span
    return replace(span, start=span.start + characters, stop=span.stop + characters)


def cut_spans(spans: list[Span], tokens: int, *, left: bool) -> list[Span]:
    """At most `tokens`: those that frame the text are kept, others dropped from one end."""
    own = [place for place, span in enumerate(spans) if span.start is not None]
    room = max(0, tokens - (len(spans) - len(own)))
    gone = set(own[: max(0, len(own) - room)] if left else own[room:])
    return [span for place, span in enumerate(spans) if place not in gone]
