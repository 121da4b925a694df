"""The loss against its formula and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from mlpkit import CrossEntropy, eval_numerical_gradient, rel_error, softmax
from mlpkit_backends import Backend

SCORES = np.random.default_rng(1).standard_normal((6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("size_average", [True, False])
def test_value_and_gradient(backend: Backend, size_average: bool) -> None:
    scores, labels = backend.asarray(SCORES.copy()), backend.asarray(LABELS)
    loss = CrossEntropy(size_average)
    each = -scipy.special.log_softmax(SCORES, axis=1)[range(6), LABELS]
    value = loss.forward(scores, labels)
    assert isinstance(value, float)
    assert value == pytest.approx(each.mean() if size_average else each.sum(), rel=1e-14)
    gradient = loss.backward()
    numerical = eval_numerical_gradient(lambda s: loss.forward(s, labels), scores, verbose=False)
    assert rel_error(numerical, gradient) < 1e-8


def test_large_scores_stay_finite(backend: Backend) -> None:
    scores = backend.asarray([[1e4, -1e4], [-1e4, 1e4]])
    loss = CrossEntropy()
    assert loss.forward(scores, backend.asarray([1, 1])) == 1e4  # (2e4 + 0) / 2
    assert backend.to_numpy(softmax(scores)).tolist() == [[1, 0], [0, 1]]


def test_labels_that_are_no_integers(backend: Backend) -> None:
    scores, labels = backend.asarray(np.zeros((2, 3))), backend.asarray(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"labels must be integers; got .*float64"):
        CrossEntropy().forward(scores, labels)


def test_backward_needs_a_forward() -> None:
    with pytest.raises(ValueError, match="needs a forward before it"):
        CrossEntropy().backward()


@pytest.mark.parametrize("labels", [[0, 4], [-1, 0]])
def test_labels_out_of_range(backend: Backend, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"labels must be in 0\.\.3.*got {min(labels)}"):
        CrossEntropy().forward(backend.asarray(SCORES[:2]), backend.asarray(labels))


@pytest.mark.parametrize(
    ("scores", "labels"), [((6,), (6,)), ((6, 4), (5,)), ((6, 4), (6, 1)), ((6, 4), ()), ((), (6,))]
)
def test_shapes_that_do_not_fit(
    backend: Backend, scores: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"scores of shape \(N, C\) and labels of shape \(N,\)"):
        CrossEntropy().forward(
            backend.asarray(np.zeros(scores)), backend.asarray(np.zeros(labels, np.int64))
        )


def test_labels_may_be_a_list(backend: Backend) -> None:
    scores = backend.asarray(np.zeros((2, 4)))
    assert CrossEntropy().forward(scores, [0, 3]) == pytest.approx(np.log(4), rel=1e-15)


@pytest.mark.parametrize("given", ["sum", 0.1, None, 1])
def test_size_average_is_true_or_false(given: object) -> None:
    with pytest.raises(TypeError, match=r"True for the mean .* False for the sum; got"):
        CrossEntropy(given)
