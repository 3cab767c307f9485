"""How good a classifier is: plain functions of what it said and what is true."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def accuracy(predicted_N: Tensor, labels_N: Tensor) -> float:
    """The share that is right, 0 to 1."""
    return (predicted_N == labels_N).float().mean().item()


def f1_by_class(predicted_N: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """Each class's F1 [C] = 2·hits / (times said + times true); NaN for one that doesn't occur."""
    hits_C = torch.bincount(labels_N[predicted_N == labels_N], minlength=classes)
    said_C = torch.bincount(predicted_N, minlength=classes)
    true_C = torch.bincount(labels_N, minlength=classes)
    return 2 * hits_C / (said_C + true_C)


def macro_f1(predicted_N: Tensor, labels_N: Tensor, classes: int) -> float:
    """The mean F1 of the classes that occur, rare ones counting as much as frequent ones."""
    return f1_by_class(predicted_N, labels_N, classes).nanmean().item()


def several_f1(said_NC: Tensor, labels_NC: Tensor) -> tuple[float, float]:
    """Micro- and macro-F1 of answers that may be several at once (booleans); labels that neither
    occur nor are said don't count."""
    hits_C = (said_NC & labels_NC).sum(dim=0)
    all_C = said_NC.sum(dim=0) + labels_NC.sum(dim=0)
    micro = 2 * hits_C.sum() / all_C.sum().clamp(min=1)
    return micro.item(), (2 * hits_C / all_C).nanmean().nan_to_num().item()


def expected_calibration_error(probabilities_NC: Tensor, labels_N: Tensor, bins: int = 15) -> float:
    """How far confidence is from accuracy, on average (Guo et al. 2017, equation 3), 0 to 1.

    Answers are put into `bins` of equal width by the probability of the class they name.
    """
    confidence_N, predicted_N = probabilities_NC.max(dim=-1)
    bin_N = (confidence_N * bins).long().clamp(max=bins - 1)
    excess_N = (confidence_N - (predicted_N == labels_N).float()).double()
    excess_by_bin = torch.zeros(bins, dtype=torch.double).index_add(0, bin_N, excess_N)
    return (excess_by_bin.abs().sum() / len(labels_N)).item()


Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, labels) → a number: the lower, the better do probabilities fit."""


MAX_TEMPERATURE = 100.0
"""A head that has learnt nothing is best flattened without end: this far it can be taken back."""


def temperature(logits_NC: Tensor, labels: Tensor, loss_of: Loss = F.cross_entropy) -> float:
    """What to divide logits by so that probabilities fit best: least cross-entropy (Guo et al.)."""
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = loss_of(logits_NC / log_temperature.exp(), labels)
        value.backward()  # pyright: ignore[reportUnknownMemberType]
        return value

    optimizer.step(loss)  # pyright: ignore[reportUnknownMemberType]
    return min(max(log_temperature.exp().item(), 1 / MAX_TEMPERATURE), MAX_TEMPERATURE)
