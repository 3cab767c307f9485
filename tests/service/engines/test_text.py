"""Stop strings: found wherever tokens are cut, and never shown, not even in part."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.text import TextStream, overlap


class Pieces:
    """A decode stream whose token n is the nth of some pieces; `rest` comes with the flush."""

    def __init__(self, pieces: list[str], rest: str = "") -> None:
        self.pieces = pieces
        self.rest = rest

    def push(self, token_id: int) -> str:
        return self.pieces[token_id]

    def flush(self) -> str:
        return self.rest


def released(pieces: list[str], stop: tuple[str, ...], rest: str = "") -> Iterator[str]:
    """What becomes final after each token, until a stop string or the end."""
    text = TextStream(Pieces(pieces, rest), stop)
    for token_id in range(len(pieces)):
        yield text.push(token_id)
        if text.stopped:
            return
    yield text.flush()


def before_stop(whole: str, stop: tuple[str, ...]) -> str:
    found = [whole.index(each) for each in stop if each in whole]
    return whole[: min(found)] if found else whole


def test_a_stop_string_split_over_tokens_never_leaks() -> None:
    assert list(released(["one ", "<", "end", "> two"], ("<end>",))) == ["one ", "", "", ""]


def test_what_only_looked_like_a_stop_string_comes_as_soon_as_that_is_certain() -> None:
    assert list(released(["a<", "en", "x", "!"], ("<end>",))) == ["a", "", "<enx", "!", ""]


def test_what_is_held_back_at_the_end_is_released() -> None:
    assert list(released(["a", "<en"], ("<end>",))) == ["a", "", "<en"]


def test_a_stop_string_may_be_completed_by_what_the_stream_held_back() -> None:
    assert "".join(released(["ab", "c"], ("cd",), rest="d")) == "ab"


def test_without_stop_strings_text_passes_through() -> None:
    assert list(released(["a", "b"], (), rest="c")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "stop", "length"),
    [("xab", "abc", 2), ("aab", "aabaac", 3), ("abc", "abc", 0), ("", "a", 0), ("aaa", "aaaa", 3)],
)
def test_overlap_is_the_longest_proper_beginning(text: str, stop: str, length: int) -> None:
    assert overlap(text, stop) == length


letters = st.text("ab", max_size=4)
stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple)


@given(pieces=st.lists(letters, max_size=12), stop=stops, rest=letters)
def test_the_text_ends_before_the_first_stop_string_and_nothing_is_lost(
    pieces: list[str], stop: tuple[str, ...], rest: str
) -> None:
    final = list(released(pieces, stop, rest))
    # Which of several stop strings is found first depends on the token that completes it: the
    # text seen up to that token decides, not what would have come later.
    for count in range(len(pieces) + 1):
        seen = "".join(pieces[:count])
        if any(each in seen for each in stop):
            break
    else:
        seen = "".join(pieces) + rest
    assert "".join(final) == before_stop(seen, stop)
