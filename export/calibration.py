"""The texts that int8 is calibrated on: prose, dialogue, code, lists, numbers, labels.

What counts is how the model's inner values are spread and go together, which is the model's own
more than the text's; texts of many kinds show it. Ours, so that the package may contain them.
"""

from functools import cache
from pathlib import Path

SEPARATOR = "\n%%\n"
WORDS = 300


@cache
def texts() -> tuple[str, ...]:
    """About a hundred texts, some 9,000 tokens."""
    whole = Path(__file__).with_name("calibration.txt").read_text(encoding="utf-8")
    return tuple(text.strip("\n") for text in whole.split(SEPARATOR))


@cache
def words() -> tuple[str, ...]:
    """Some words by themselves, the common and the rare ones of all the texts."""
    every = dict.fromkeys(" ".join(texts()).split())
    return tuple(every)[:: max(1, len(every) // WORDS)]
