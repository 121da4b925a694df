"""What fit is given that it can't use is said before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlpkit import MLP, SGD, Adam, Batches, CrossEntropy, compute_acc, evaluate, fit

RNG = np.random.default_rng(5)
IMAGES, LABELS = RNG.standard_normal((40, 4)), RNG.integers(0, 3, 40)


def train(**given: Any) -> Any:
    """fit on a small network, with those of its arguments exchanged."""
    model = given.pop("model", None) or MLP((4, 3), seed=1, backend="numpy")
    batches = Batches.of("numpy", IMAGES, LABELS, "float64")
    parts = {"loss_func": CrossEntropy(backend="numpy"), "train": batches, "val": batches}
    parts |= {"batch_size": 8, "epochs": 2, "seed": 0}
    if "optimizer" not in given:
        parts["optimizer"] = SGD(model, 0.1)
    return fit(model, **(parts | given))


class Silent:
    """Neither of a watcher's methods."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": MLP((4, 3), seed=1).net}, r"model should be a Module.*got Sequential"),
        ({"train": (IMAGES, LABELS)}, r"train should be made with Batches\.of.*got tuple"),
        ({"val": None}, r"val should be made with Batches\.of.*got NoneType"),
        ({"loss_func": CrossEntropy}, r"loss_func should be .*got the class CrossEntropy"),
        ({"loss_func": "mse"}, r"loss_func should be .*forward and backward; got str"),
        ({"optimizer": "adam"}, r"optimizer should be .*as Adam\(model\).*got str"),
        ({"optimizer": Adam}, r"optimizer should be .*got the class Adam"),
        ({"watcher": Silent()}, r"watcher should be .*iterations and epoch; got Silent"),
    ],
)
def test_parts_of_another_kind(given: dict[str, Any], message: str) -> None:
    if "model" in given:
        given = given | {"optimizer": SGD(given["model"])}
    with pytest.raises(TypeError, match=message):
        train(**given)


def test_small_integers_of_numpys_do_not_wrap() -> None:
    small = train(batch_size=np.int8(8), epochs=np.int8(2), lr_decay_every=np.uint8(1))
    assert small == train(batch_size=8, epochs=2, lr_decay_every=1)
    assert small.iterations == 10


def test_a_decay_of_numpys_leaves_lr_a_float() -> None:
    model = MLP((4, 3), seed=1, backend="numpy")
    optimizer = SGD(model, 0.1)
    train(model=model, optimizer=optimizer, lr_decay=np.float32(0.5), lr_decay_every=1)
    assert type(optimizer.lr) is float
    assert optimizer.lr == 0.025


@pytest.mark.parametrize("first", [1, -1])
def test_labels_that_are_no_columns_of_the_scores(first: int) -> None:
    model, labels = MLP((4, 3), seed=1, backend="numpy"), LABELS + first
    batches = Batches.of("numpy", IMAGES, labels, "float64")
    loss = CrossEntropy(backend="numpy")
    for call in (
        lambda: train(model=model, optimizer=SGD(model), val=batches),
        lambda: evaluate(model, loss, batches),
        lambda: compute_acc(model, IMAGES, labels),
    ):
        with pytest.raises(ValueError, match=rf"labels must be in 0\.\.2.*got {first}\.\."):
            call()


@pytest.mark.parametrize("labels", [LABELS.astype(float), np.eye(3)[LABELS]])
def test_labels_that_are_no_integers(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"got float64 .*astype\(int\).*argmax\(axis=1\)"):
        Batches.of("numpy", IMAGES, labels, "float64")


@pytest.mark.parametrize("mean", [113.9, -0.1, float("nan")])
def test_a_mean_image_that_is_not_scaled(mean: float) -> None:
    images = RNG.integers(0, 256, (3, 4), np.uint8)
    with pytest.raises(ValueError, match=r"scaled to \[0, 1\]; .* divide it by 255"):
        Batches.of("numpy", images, [0, 1, 2], "float32", np.full(4, mean))
