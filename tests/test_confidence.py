"""Calibration and rejection, counted by hand."""

import numpy as np
import pytest

from lenet.evaluation import confidence
from lenet.params.schema import Params


def test_squared_error_s_outputs_are_rescaled_between_their_targets_and_clipped(params: Params) -> None:
    outputs = np.array([[0.5, *[-1.0] * 9], [1.7, *[-1.0] * 9], [-1.2, *[-1.5] * 9]])
    assert confidence.of(outputs, params.variants["original-tanh"]) == pytest.approx([0.75, 1, 0])  # targets ±1
    assert confidence.of(outputs, params.variants["original-sigmoid"]) == pytest.approx([0.5, 1, 0])  # 0 and 1
    softmax = np.array([[0.2, 0.7, 0.1, *[0.0] * 7]])
    assert confidence.of(softmax, params.variants["modern"]) == pytest.approx([0.7])


def test_a_reliability_bin_holds_its_answers_confidence_and_accuracy() -> None:
    sure = np.array([0.95, 0.97, 0.99, 0.5])
    bins = confidence.reliability(sure, np.array([True, True, False, False]))
    assert [(one.count, one.accuracy) for one in bins] == [(1, 0), (3, pytest.approx(2 / 3))]
    assert bins[1].confidence == pytest.approx(0.97)


SURE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
RIGHT = np.array([True, True, False, True, False])


def test_the_least_confident_answers_are_rejected_first() -> None:
    shares = np.array([0, 0.2, 0.4, 0.6])
    assert confidence.rejection(SURE, RIGHT, shares) == pytest.approx([2 / 5, 1 / 4, 1 / 3, 0])
    assert confidence.rejected_for(SURE, RIGHT, 0.4) == 0
    assert confidence.rejected_for(SURE, RIGHT, 0.25) == pytest.approx(0.2)
    assert confidence.rejected_for(SURE, RIGHT, 0.1) == pytest.approx(0.6)
    assert confidence.rejected_for(SURE, ~RIGHT, 0.1) == 1  # the surest is wrong


def test_equally_confident_answers_are_rejected_together_or_by_lot() -> None:
    sure, right = np.array([0.9, 0.9, 0.9, 0.9]), np.array([True, False, True, True])
    assert confidence.rejection(sure, right, np.array([0, 0.5])) == pytest.approx([0.25, 0.25])
    assert confidence.rejected_for(sure, right, 0.1) == 1
