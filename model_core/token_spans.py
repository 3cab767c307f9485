"""Where the tokens of a text stand in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A token, what it stands for in its text and where, in characters.

    One that frames the text stands nowhere in it, and has its own name. One that `continues`
    belongs to the word of the token before it.
    """

    token_id: int
    text: str
    special: bool
    start: int | None
    stop: int | None
    continues: bool = False
