"""Metrics against figures worked out by hand, and a temperature that undoes a known one."""

import pytest
import torch

from model_core.training.metrics import (
    MAX_TEMPERATURE,
    accuracy,
    expected_calibration_error,
    f1_by_class,
    macro_f1,
    temperature,
)

LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
PREDICTED = torch.tensor([0, 0, 1, 1, 0, 2])


def test_figures_are_those_worked_out_by_hand():
    assert accuracy(PREDICTED, LABELS) == pytest.approx(4 / 6)
    # Class 0: precision 2/3, recall 2/3; class 1: 1/2, 1/2; class 2: all; class 3 doesn't occur.
    f1 = f1_by_class(PREDICTED, LABELS, 4)
    assert f1[:3].tolist() == pytest.approx([2 / 3, 1 / 2, 1.0])
    assert f1[3].isnan()
    assert macro_f1(PREDICTED, LABELS, 4) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_calibration_error_is_the_mean_distance_of_confidence_from_accuracy():
    # Four answers at 0.9 of which three are right, six at 0.6 of which all are right.
    probabilities = torch.tensor([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 6)
    labels = torch.tensor([0, 0, 0, 1] + [1] * 6)
    expected = 0.4 * abs(0.9 - 0.75) + 0.6 * abs(0.6 - 1.0)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_full_confidence_falls_into_the_last_bin():
    certain = torch.tensor([[1.0, 0.0]])
    assert expected_calibration_error(certain, torch.tensor([0])) == 0.0


def test_the_temperature_of_what_has_learnt_nothing_is_bounded():
    logits = torch.tensor([[1e-4, 0.0], [0.0, 1e-4]]).repeat(50, 1)
    wrong = torch.tensor([1, 0]).repeat(50)
    assert temperature(logits, wrong) <= MAX_TEMPERATURE
    assert temperature(logits * 1e-3, 1 - wrong) >= 1 / MAX_TEMPERATURE


def test_temperature_finds_how_much_too_confident_logits_are():
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 5, generator=generator) * 2
    labels = torch.multinomial(honest.softmax(dim=-1), 1, generator=generator)[:, 0]
    # 20,000 draws leave an uncertainty of about one in a hundred.
    assert temperature(honest * 3, labels) == pytest.approx(3.0, rel=0.05)
