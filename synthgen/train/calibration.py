"""Whether a classifier is as sure as it is right, and one number that makes it so.

In: logits and true classes of rows it was not trained on. Out: the expected calibration error, and the temperature that
fits them best. Dividing logits by a temperature changes no decision.

Source: Guo et al. 2017, "On calibration of modern neural networks".
Axes: N rows, C classes.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration_error", "fit_temperature"]

Floats = NDArray[np.float64]
_BINS = 15  # as in the source
_RANGE = (-3.0, 3.0)  # of log temperature: 0.05 to 20
_STEPS = 60  # golden section: the range shrinks to 1e-12 of itself


def calibration_error(logits_NC: Floats, labels_N: NDArray[np.int64]) -> float:  # axes
    """Mean distance of confidence and accuracy over bins of confidence, weighted by their rows: 0..1."""
    probabilities = np.exp(_log_softmax(logits_NC))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels_N
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        (bins == one).mean() * abs(confidence[bins == one].mean() - right[bins == one].mean())
        for one in np.unique(bins)
    ]
    return float(np.sum(gaps))


def fit_temperature(logits_NC: Floats, labels_N: NDArray[np.int64]) -> float:
    """The temperature with the least negative log likelihood, within 0.05..20.

    The likelihood of one over the temperature is concave, so there is one best.

    Raises:
        ValueError: no rows.
    """
    if len(labels_N) == 0:
        raise ValueError("no rows to calibrate on")
    golden = (np.sqrt(5) - 1) / 2
    low, high = _RANGE

    def loss(log_temperature: float) -> float:
        logprobs = _log_softmax(logits_NC / np.exp(log_temperature))
        return float(-logprobs[np.arange(len(labels_N)), labels_N].mean())

    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _log_softmax(logits: Floats) -> Floats:
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    logprobs: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs
