"""What fit is given that it can't use is said before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlpkit import (
    MLP,
    SGD,
    Adam,
    Batches,
    CrossEntropy,
    FullyConnected,
    History,
    Layer,
    Module,
    Sequential,
    check_gradients,
    compute_acc,
    evaluate,
    fit,
    train_net,
)

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
        ({"optimizer": Silent()}, r"optimizer should be .*step, net and lr; got Silent"),
        ({"watcher": Silent()}, r"watcher should be .*iterations and epoch; got Silent"),
    ],
)
def test_parts_of_another_kind(given: dict[str, Any], message: str) -> None:
    if "model" in given:
        given = given | {"optimizer": SGD(given["model"])}
    with pytest.raises(TypeError, match=message):
        train(**given)


def test_small_integers_of_numpys_do_not_wrap() -> None:
    small = train(
        batch_size=np.int8(8), epochs=np.int8(2), lr_decay_every=np.uint8(1), chunk=np.int8(32)
    )
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


class Tenfold(CrossEntropy):
    """Ten times the cross entropy."""

    def forward(self, scores, labels):
        return 10 * super().forward(scores, labels)

    def backward(self):
        return 10 * super().backward()


def test_a_loss_derived_from_cross_entropy_counts() -> None:
    model = MLP((4, 3), seed=1, backend="numpy")
    batches = Batches.of("numpy", IMAGES, LABELS, "float64")
    ten, one = (
        evaluate(model, Tenfold(backend="numpy"), batches),
        evaluate(model, CrossEntropy(), batches),
    )
    assert ten[0] == pytest.approx(10 * one[0], rel=1e-12)
    tenfold, plain = (MLP((4, 3), seed=1, backend="numpy") for _ in range(2))
    scaled = train(model=tenfold, loss_func=Tenfold(backend="numpy"), optimizer=SGD(tenfold, 0.01))
    straight = train(model=plain, optimizer=SGD(plain, 0.1))
    np.testing.assert_allclose(scaled.losses, 10 * np.array(straight.losses), rtol=1e-10)


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "one number, over the batch; got None"), (np.ones(8), r"got shape \(8,\)")],
)
def test_a_loss_that_returns_no_number(value: Any, message: str) -> None:
    class Odd(CrossEntropy):
        def forward(self, scores, labels):
            return value

    with pytest.raises(TypeError, match=message):
        train(loss_func=Odd(backend="numpy"))


class Stops:
    """A watcher that raises at an iteration, or ends training after an epoch."""

    def __init__(self, at: int | None = None, after: int | None = None) -> None:
        self.at, self.after = at, after

    def iterations(self, done: int, total: int, losses: object) -> None:
        if self.at is not None and done >= self.at:
            raise InterruptedError

    def epoch(self, number: int, epochs: int, history: History) -> None:
        if number == self.after:
            history.stopped = "enough"


@pytest.mark.parametrize("chunk", [1, 2, 32])
def test_training_goes_on_from_where_a_watcher_raised(chunk: int) -> None:
    whole, cut = (MLP((4, 3), seed=1, backend="numpy") for _ in range(2))
    expected = train(model=whole, optimizer=Adam(whole, 0.01))
    optimizer, history = Adam(cut, 0.01), History()
    rest = {"model": cut, "optimizer": optimizer, "history": history, "chunk": chunk}
    with pytest.raises(InterruptedError):
        train(**rest, watcher=Stops(at=7))
    assert history.iterations == optimizer.t >= 7
    assert train(**rest) == expected
    for name, p in whole.net.params.items():
        assert np.array_equal(p, cut.net.params[name])


def test_a_history_of_another_training() -> None:
    history = train()
    with pytest.raises(ValueError, match="this history is of seed 0; got 1"):
        train(history=history, epochs=3, seed=1)
    other = MLP((4, 5, 3), seed=1, backend="numpy")
    with pytest.raises(ValueError, match=r"of another model: .* fc1_w \(4, 3\).*fc1_w \(4, 5\)"):
        train(history=history, epochs=3, model=other)
    assert len(history.epochs) == 2


def test_a_watcher_ends_training() -> None:
    history = train(epochs=5, watcher=Stops(after=2))
    assert (len(history.epochs), history.stopped) == (2, "enough")
    history = train(epochs=2, watcher=Stops(after=2))
    assert (len(history.epochs), history.stopped) == (2, "")


@pytest.mark.parametrize(
    ("images", "dtype", "message"),
    [
        (np.full((3, 4), "a"), "float64", r"images should be numbers; got str"),
        (np.ones((3, 4), complex), "float64", "images should be numbers; got complex128"),
        (np.ones((3, 4)), "int64", "dtype must be one of floats, .*; got 'int64'"),
    ],
)
def test_images_that_are_no_numbers(images: np.ndarray, dtype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches.of("numpy", images, [0, 1, 2], dtype)


@pytest.mark.parametrize("index", [LABELS == 1, np.array([0.0, 1.0])])
def test_what_is_taken_is_said_by_number(index: np.ndarray) -> None:
    batches = Batches.of("numpy", IMAGES, LABELS, "float64")
    with pytest.raises(ValueError, match=r"integers of the examples; got (bool|float64)"):
        batches.take(index)


def test_what_is_no_network_or_split_to_score() -> None:
    model, batches = MLP((4, 3)), Batches.of("numpy", IMAGES, LABELS, "float64")
    with pytest.raises(TypeError, match=r"batches should be made with Batches\.of.*got tuple"):
        evaluate(model, CrossEntropy(), (IMAGES, LABELS))
    with pytest.raises(TypeError, match=r"model should be a Module.*got Sequential"):
        evaluate(model.net, CrossEntropy(), batches)
    with pytest.raises(TypeError, match=r"model should be a Module.*got NoneType"):
        compute_acc(None, IMAGES, LABELS)
    data = {"data_train": (IMAGES, LABELS), "data_val": (IMAGES, LABELS)}
    with pytest.raises(TypeError, match=r"model should be a Module.*got the class MLP"):
        train_net(data, MLP, CrossEntropy(), SGD(model), 8, 1)


def test_labels_in_a_column() -> None:
    with pytest.raises(ValueError, match=r"got int64 \(40, 1\): take labels\.ravel\(\)"):
        Batches.of("numpy", IMAGES, LABELS[:, None], "float64")


def test_an_eps_that_is_nothing_in_half_precision() -> None:
    model = MLP((4, 3), seed=1, dtype="float16", backend="numpy")
    batches = Batches.of("numpy", IMAGES, LABELS, "float16")
    given = {"model": model, "train": batches, "val": batches}
    with pytest.raises(ValueError, match=r"eps 1e-08 is 0 in float16, .*the Adam a larger one"):
        train(**given, optimizer=Adam(model))
    train(**given, optimizer=Adam(model, eps=1e-4))


class Affine(Layer):
    """x w + b, by a layer of its own whose parameters it may share."""

    def __init__(self, shares: bool) -> None:
        super().__init__("affine")
        self.inner = FullyConnected(3, 3, 0.1, "inner", seed=2, backend="numpy")
        if shares:
            self.params |= self.inner.params
            self.inner.params, self.inner.grads = self.params, self.grads

    def forward(self, x):
        return self.inner.forward(x)

    def backward(self, dout):
        return self.inner.backward(dout)


def test_a_layer_whose_parameters_the_network_lacks() -> None:
    model = MLP((4, 3), seed=1, backend="numpy")
    model.net.layers.append(Affine(shares=False))
    said = r"lacks the parameters of layer inner, inner_w, inner_b, and would neither"
    with pytest.raises(ValueError, match=said):
        train(model=model)
    with pytest.raises(ValueError, match=said):
        check_gradients(model, IMAGES, LABELS)
    model.net.layers[-1] = Affine(shares=True)
    before = model.net.params["inner_w"].copy()
    train(model=model)
    assert not np.array_equal(model.net.params["inner_w"], before)


@pytest.mark.parametrize(
    "held", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}, lambda x: Sequential(x)]
)
def test_a_layer_that_is_the_models_attribute_alone(held) -> None:
    model = MLP((4, 3), seed=1, backend="numpy")
    layer = FullyConnected(3, 3, name="head", backend="numpy")
    model.head = held(layer)
    with pytest.raises(ValueError, match=r"lacks the parameters of layer head, head_w, head_b"):
        train(model=model)
    model.head = held(model.net.layers[-1])
    train(model=model)
    model.head = Module(Sequential(layer))
    train(model=model)


@pytest.mark.parametrize("value", [np.float64(1.0), 1.0, [1.0]])
def test_a_parameter_that_is_no_array(value: Any) -> None:
    model = MLP((4, 3), seed=1, backend="numpy")
    model.net.layers[-1].params["scale"] = value
    with pytest.raises(TypeError, match=r"parameter scale of layer fc1 should be an array"):
        train(model=model)
