"""Bits per byte: the n-gram model is a distribution, and knows what it has seen."""

import random

import numpy as np
import pytest

from model_core.training.corpora.bits import ByteGrams, bits_per_byte, windows
from model_core.training.errors import TrainingError

TEXT = b"the cat sat on the mat; the rat sat on the cat. " * 40


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("context", [b"", b"the ca", b"sat on t", b"\xff\x00\xff\x00\xff\x00\xff"])
def test_probabilities_of_all_bytes_after_any_context_sum_to_one(order: int, context: bytes):
    model = ByteGrams.of(TEXT + bytes(range(256)), order)
    p = [model.probabilities(context + bytes([byte]))[-1] for byte in range(256)]
    assert sum(p) == pytest.approx(1.0, abs=1e-12)
    assert min(p) > 0


def test_kneser_ney_by_hand():
    # Bigrams of "abab": ab twice, ba once; D = 1 / (1 + 2·1), a and b come after one byte each.
    model = ByteGrams.of(b"abab", 2)
    shorter = (1 - 1.0) / 2 + 1.0 * 2 / 2 * (1 / 256)
    expected = (2 - 1 / 3) / 2 + 1 / 3 * 1 / 2 * shorter
    assert model.probabilities(b"ab")[1] == pytest.approx(expected)


def test_longer_contexts_say_more_of_a_text_that_repeats():
    bits = [ByteGrams.of(TEXT, order).bits(TEXT[:200]) for order in (1, 2, 4, 8)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 0.1 * bits[0]


def test_noise_has_eight_bits_a_byte_and_what_is_known_hardly_any():
    noise = random.Random(0).randbytes(20_000)
    other = random.Random(1).randbytes(5_000)
    of_noise = bits_per_byte(noise, other)
    # Formats add a little; 20,000 bytes are few to learn that all are as likely.
    assert all(7.9 < bits < 8.6 for bits in of_noise.values()), of_noise
    known = bits_per_byte(noise, noise[:5_000])
    assert known["xz -9 after the training text"] < 0.7
    assert known["xz -9"] > 8.0


def test_windows_are_the_bytes_in_a_row():
    assert windows(b"\x01\x02\x03", 2).tolist() == [0x0102, 0x0203]
    assert windows(b"abcdefgh", 8).dtype == np.uint64


def test_too_little_text_is_refused():
    with pytest.raises(TrainingError, match="8 bytes to learn from, 0 held out"):
        bits_per_byte(b"8 bytes!", b"")
