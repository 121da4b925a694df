"""The training loop: order, history, decay, best parameters, parity and what it refuses."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from mlpkit import (
    MLP,
    SGD,
    SGDM,
    Adam,
    Batches,
    CrossEntropy,
    Flatten,
    FullyConnected,
    Layer,
    Module,
    RMSProp,
    Sequential,
    TrainingDiverged,
    compute_acc,
    evaluate,
    fit,
    train_net,
    training,
)
from mlpkit.history import History, Losses
from mlpkit.seeding import epoch_order
from mlpkit.signals import uninterrupted
from mlpkit.training import Pace
from mlpkit_backends import Backend, load

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 50)
MEAN = IMAGES.mean(axis=0) / 255
OPTIMIZERS = {
    "SGD": lambda net: SGD(net, 0.1),
    "SGDM": lambda net: SGDM(net, 0.1, 0.9),
    "RMSProp": lambda net: RMSProp(net, 1e-3),
    "Adam": lambda net: Adam(net, 1e-3),
}


def run(backend: Backend, optimizer: str = "SGD", dtype: str = "float64", **settings):
    """Five epochs of an MLP with dropout on the 50 images; the history and the model."""
    model = MLP((48, 16, 3), keep_prob=0.8, dropout_seed=4, seed=4, dtype=dtype, backend=backend)
    split = Batches.of(backend, IMAGES, LABELS, dtype, MEAN)
    settings = {"batch_size": 8, "epochs": 5, "seed": 4} | settings
    loss = CrossEntropy(backend=backend)
    return fit(model, loss, OPTIMIZERS[optimizer](model), split, split, **settings), model


def by_hand(epochs: int) -> list[float]:
    """The losses of SGD on softmax regression, written out in plain NumPy."""
    w = 0.1 * np.random.default_rng(2).standard_normal((48, 3))
    b = np.zeros(3)
    x = (IMAGES / 255 - MEAN).reshape(50, 48)
    losses = []
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([7, epoch]).permutation(50)
        for i in range(6):
            batch = order[8 * i : 8 * i + 8]
            scores = x[batch] @ w + b
            p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            losses.append(-np.log(p[range(8), LABELS[batch]]).mean())
            delta = (p - np.eye(3)[LABELS[batch]]) / 8
            w, b = w - 0.5 * x[batch].T @ delta, b - 0.5 * delta.sum(axis=0)
    return losses


def test_losses_are_those_of_the_formulas(backend: Backend) -> None:
    net = Sequential(Flatten(), FullyConnected(48, 3, 0.1, seed=2))
    model = Module(net)
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    history = fit(
        model, CrossEntropy(), SGD(net, 0.5), split, split, batch_size=8, epochs=5, seed=7
    )
    np.testing.assert_allclose(history.losses, by_hand(5), rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_seed_one_result_on_every_backend(backend: Backend, optimizer: str) -> None:
    if backend.name == "numpy":
        pytest.skip("the others are held to it, and it to the formulas")
    history, model = run(backend, optimizer)
    reference, reference_model = run(load("numpy"), optimizer)
    assert len(history.losses) == 30
    np.testing.assert_allclose(history.losses, reference.losses, rtol=1e-12)
    for name, p in model.net.params.items():
        wanted = reference_model.net.get_params(name)
        np.testing.assert_allclose(backend.to_numpy(p), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_seed_gives_the_same_bits(backend: Backend, dtype: str) -> None:
    (one, model_one), (two, model_two) = run(backend, dtype=dtype), run(backend, dtype=dtype)
    assert one.losses == two.losses
    assert one.epochs == two.epochs
    pairs = zip(model_one.net.params.values(), model_two.net.params.values(), strict=True)
    for p, q in pairs:
        assert np.array_equal(backend.to_numpy(p), backend.to_numpy(q))
    assert run(backend, dtype=dtype, seed=5)[0].losses != one.losses


def test_an_epoch_is_a_fresh_permutation() -> None:
    one, two = epoch_order(50, 3, 1), epoch_order(50, 3, 2)
    assert sorted(one) == sorted(two) == list(range(50))
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, epoch_order(50, 4, 1))


def test_every_image_of_a_full_epoch_is_used_once(backend: Backend) -> None:
    seen: list[int] = []

    model = MLP((1, 3), seed=0)
    images = np.arange(40.0).reshape(40, 1)
    forward = model.forward

    def spy(x, is_training=True, seed=None):
        if is_training:
            seen.extend(backend.to_numpy(x)[:, 0].astype(int).tolist())
        return forward(x, is_training, seed)

    model.forward = spy
    split = Batches.of(backend, images, np.zeros(40, np.int64), "float64")
    fit(model, CrossEntropy(), SGD(model, 1e-9), split, split, batch_size=8, epochs=1, seed=0)
    assert sorted(seen) == list(range(40))
    assert seen != sorted(seen)


def test_the_learning_rate_decays_after_every_so_many_epochs(backend: Backend) -> None:
    history, _ = run(backend, lr_decay=0.5, lr_decay_every=2)
    assert [epoch.lr for epoch in history.epochs] == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_the_best_epochs_parameters_are_copied(backend: Backend) -> None:
    history, model = run(backend)
    accuracies = [epoch.val_acc for epoch in history.epochs]
    assert history.best_epoch == 1 + int(np.argmax(accuracies))
    _, short_model = run(backend, epochs=history.best_epoch)
    for name, p in short_model.net.params.items():
        assert np.array_equal(backend.to_numpy(history.best_params[name]), backend.to_numpy(p))
        assert history.best_params[name] is not model.net.get_params(name)


def test_the_recorded_scores_are_those_of_the_network(backend: Backend) -> None:
    history, model = run(backend, epochs=2)
    x = (IMAGES / 255 - MEAN).reshape(50, 48)
    w1, b1, w2, b2 = (backend.to_numpy(p) for p in model.net.params.values())
    hidden = x @ w1 + b1
    scores = np.where(hidden >= 0, hidden, 0.01 * hidden) @ w2 + b2
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    last = history.epochs[-1]
    assert last.val_loss == pytest.approx(-np.log(p[range(50), LABELS]).mean(), rel=1e-12)
    assert last.val_acc == last.train_acc == (scores.argmax(axis=1) == LABELS).mean()
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    loss, accuracy = evaluate(model, CrossEntropy(), split, batch_size=7)  # 7 does not divide 50
    assert (loss, accuracy) == (pytest.approx(last.val_loss, rel=1e-12), last.val_acc)
    total, _ = evaluate(model, CrossEntropy(size_average=False), split, batch_size=7)
    assert total == pytest.approx(last.val_loss, rel=1e-12)


def test_a_diverging_loss_stops_and_keeps_what_was_recorded(backend: Backend) -> None:
    model = MLP((48, 16, 3), seed=1)
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    with pytest.raises(TrainingDiverged, match=r"became (nan|inf) at iteration (\d+):") as caught:
        fit(model, CrossEntropy(), SGD(model, 1e200), split, split, batch_size=8, epochs=2, seed=0)
    losses = caught.value.history.losses
    assert f"iteration {len(losses) + 1}:" in str(caught.value)
    assert 1 <= len(losses) < 12
    assert np.isfinite(losses).all()
    assert caught.value.history.ahead
    # As it comes out of another process.
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.history.losses) == (str(caught.value), losses)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 51}, "batch size must be from 1 to the 50 training images; got 51"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1; got 0"),
        ({"batch_size": 8.0}, r"batch_size must be a whole number, at least 1; got 8\.0"),
        ({"epochs": 0}, "epochs must be a whole number, at least 1; got 0"),
        ({"epochs": 2.5}, r"epochs must be a whole number, at least 1; got 2\.5"),
        ({"lr_decay": 0.0}, "lr_decay must be positive and finite; got 0"),
        ({"lr_decay": float("inf")}, "lr_decay must be positive and finite; got inf"),
        ({"lr_decay_every": 0}, "lr_decay_every must be a whole number, at least 1; got 0"),
        ({"chunk": 0}, "chunk must be a whole number, at least 1; got 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(load("numpy"), **settings)


def test_images_and_labels_must_be_as_many() -> None:
    with pytest.raises(ValueError, match=r"as many, .*got \(50, 4, 4, 3\) and \(49,\)"):
        Batches.of(load("numpy"), IMAGES, LABELS[:49], "float64", MEAN)


def floats() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A data_dict as the notebook makes it, on the host."""
    x = (IMAGES / 255 - MEAN).astype(np.float32)
    return {"data_train": (x[:40], LABELS[:40]), "data_val": (x[40:], LABELS[40:])}


def test_train_net_returns_what_the_notebook_plots(backend: Backend) -> None:
    np.random.seed(3)
    model = MLP((48, 16, 3), seed=1)
    optimizer = SGD(model.net, 0.1)
    result = train_net(floats(), model, CrossEntropy(), optimizer, 10, 3, 0.5, 1)
    opt_params, loss_hist, train_acc_hist, val_acc_hist = result
    assert (len(loss_hist), len(train_acc_hist), len(val_acc_hist)) == (12, 3, 3)
    assert optimizer.lr == 0.1 * 0.5**3
    images, labels = floats()["data_val"]
    assert compute_acc(model, images, labels) == val_acc_hist[-1]
    model.net.load(opt_params, report=lambda line: None)
    assert compute_acc(model, images, labels) == max(val_acc_hist)


def test_train_net_takes_its_order_from_numpys_state(backend: Backend) -> None:
    def losses() -> list[float]:
        model = MLP((48, 3), seed=1)
        return train_net(floats(), model, CrossEntropy(), SGD(model.net, 0.1), 10, 2)[1]

    np.random.seed(3)
    first, second = losses(), losses()
    np.random.seed(3)
    assert losses() == first
    assert second != first


def test_verbose_training_prints_the_notebooks_lines(capsys: pytest.CaptureFixture[str]) -> None:
    model = MLP((48, 3), seed=1, backend="numpy")
    loss = CrossEntropy(backend="numpy")
    result = train_net(
        floats(), model, loss, SGD(model.net, 0.1), 10, 2, show_every=3, verbose=True
    )
    _, losses, train, val = result
    assert capsys.readouterr().out.splitlines() == [
        f"(Iteration 1 / 8) loss: {losses[0]}",
        f"(Iteration 4 / 8) loss: {losses[3]}",
        f"(Epoch 1 / 2) Training Accuracy: {train[0]}, Validation Accuracy: {val[0]}",
        f"(Iteration 7 / 8) loss: {losses[6]}",
        f"(Epoch 2 / 2) Training Accuracy: {train[1]}, Validation Accuracy: {val[1]}",
    ]


def test_compute_acc_of_a_sample(backend: Backend) -> None:
    model = MLP((48, 3), seed=1)
    model.net.assign("fc1_w", backend.asarray(np.zeros((48, 3))))
    model.net.assign("fc1_b", backend.asarray([0.0, 1.0, 0.0]))  # always says 1
    images = np.zeros((50, 48))
    assert compute_acc(model, images, LABELS) == (LABELS == 1).mean()
    np.random.seed(0)
    chosen = np.random.choice(50, 20, replace=False)
    np.random.seed(0)
    assert compute_acc(model, images, LABELS, 20, 7) == (LABELS[chosen] == 1).mean()
    assert compute_acc(model, images, LABELS, 500) == (LABELS == 1).mean()


def test_a_loss_and_a_layer_of_the_users_own(backend: Backend) -> None:
    class Squared:
        def forward(self, scores, labels):
            self.d = scores - backend.asarray(np.eye(3)[backend.to_numpy(labels)])
            return float(backend.xp.sum(self.d * self.d)) / scores.shape[0]

        def backward(self):
            return 2 * self.d / self.d.shape[0]

    model = MLP((48, 3), seed=1)
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    history = fit(model, Squared(), SGD(model, 0.05), split, split, batch_size=10, epochs=3, seed=0)
    assert history.losses[-1] < history.losses[0]
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss


@pytest.mark.parametrize(("shift", "came"), [(1, "1..3"), (-1, "-1..1"), (3 * 10**8, "300000000")])
def test_labels_that_are_no_columns_of_the_scores(backend: Backend, shift: int, came: str) -> None:
    model = MLP((48, 3), seed=1)
    good = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    bad = Batches.of(backend, IMAGES, LABELS + shift, "float64", MEAN)
    for splits in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=rf"labels must be in 0\.\.2.*got {came}"):
            fit(model, CrossEntropy(), SGD(model), *splits, batch_size=8, epochs=1, seed=0)


def test_an_optimizer_of_another_network() -> None:
    model, other = (MLP((48, 3), seed=1, backend="numpy") for _ in range(2))
    split = Batches.of(model.backend, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(backend="numpy")
    with pytest.raises(ValueError, match="this Adam is of another"):
        fit(model, loss, Adam(other), split, split, batch_size=8, epochs=1, seed=0)


def test_uint8_images_need_a_mean(backend: Backend) -> None:
    with pytest.raises(ValueError, match="needs a mean image"):
        Batches.of(backend, IMAGES, LABELS, "float64")


@pytest.mark.parametrize(
    ("data_dict", "message"),
    [
        ({"data_train": np.zeros((4, 48))}, r'data_dict\["data_train"\] .* it is ndarray'),
        ({"data_train": (np.zeros((4, 48)), np.zeros(4, int))}, r'"data_val"\] .* it is missing'),
    ],
)
def test_a_data_dict_that_lacks_a_pair(data_dict: dict[str, object], message: str) -> None:
    model = MLP((48, 3), seed=1, backend="numpy")
    with pytest.raises(ValueError, match=message):
        train_net(data_dict, model, CrossEntropy(backend="numpy"), SGD(model), 2, 1)


def test_what_train_net_cannot_take() -> None:
    model = MLP((48, 3), seed=1, backend="numpy")
    own = model, CrossEntropy(backend="numpy"), SGD(model), 2, 1
    with pytest.raises(TypeError, match=r"data_dict should be a dict with data_train .* got list"):
        train_net([IMAGES], *own)
    with pytest.raises(ValueError, match="show_every must be a whole number, at least 1; got 'a'"):
        train_net({}, *own, show_every="a")


@pytest.mark.parametrize(
    ("images", "labels", "mean", "message"),
    [
        (IMAGES, LABELS[:, None], MEAN, r"whole numbers \(N,\).*got int64 \(50, 1\)"),
        (IMAGES, LABELS + 0.5, MEAN, r"whole numbers \(N,\).*got float64 \(50,\)"),
        (IMAGES, LABELS[0], MEAN, r"whole numbers \(N,\).*got int64 \(\)"),
        (IMAGES / 255, LABELS, MEAN, "a mean image is for uint8 images.* these are float64"),
        (IMAGES, LABELS, MEAN[:3], r"shape of an image, \(4, 4, 3\), .*; got \(3, 4, 3\)"),
    ],
)
def test_what_is_no_batch(backend: Backend, images, labels, mean, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches.of(backend, images, labels, "float64", mean)


def test_lists_are_as_good_as_arrays(backend: Backend) -> None:
    model = MLP((2, 2))
    model.net.assign("fc1_w", backend.asarray(np.eye(2)))  # the larger input's place
    x = [[1, 0], [0, 1], [3, 2], [2, 3]]
    assert compute_acc(model, x, [0, 1, 1, 1]) == 0.75
    assert compute_acc(model, x, [0, 1, 0, 1], num_samples=2) == 1.0


def test_big_endian_arrays_and_those_of_another_dtype(backend: Backend) -> None:
    if backend.name not in ("numpy", "numba"):
        pytest.skip("NumPy's own kinds of arrays")
    x = np.random.default_rng(0).standard_normal((50, 48)).astype(">f4")
    found = []
    for images in (x, x.astype("float32")):
        model = MLP((48, 3), seed=1, dtype="float32")
        split = Batches.of(backend, images, LABELS.astype(">i4"), "float32")
        settings = {"batch_size": 10, "epochs": 1, "seed": 1}
        found.append(fit(model, CrossEntropy(), Adam(model), split, split, **settings))
    assert found[0].losses == found[1].losses


def test_half_precision_runs_op_by_op(backend: Backend) -> None:
    if backend.name == "strict":
        pytest.skip("the standard has no float16")
    model = MLP((48, 3), 1e-2, seed=1, dtype="float16")
    split = Batches.of(backend, IMAGES / 255, LABELS, "float16")
    settings = {"batch_size": 10, "epochs": 8, "seed": 1}
    history = fit(model, CrossEntropy(), SGD(model, 0.1), split, split, **settings)
    assert history.how.endswith("float16 has no compiled form; float32 and float64 have)")
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss


def test_a_seed_of_none_draws_one(backend: Backend) -> None:
    def losses() -> list[float]:
        model = MLP((48, 3), seed=1)
        split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
        settings = {"batch_size": 10, "epochs": 1, "seed": None}
        return fit(model, CrossEntropy(), SGD(model), split, split, **settings).losses

    np.random.seed(3)
    one, two = losses(), losses()
    np.random.seed(3)
    assert losses() == one != two


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS + 0.5])
def test_accuracy_needs_one_whole_number_an_image(backend: Backend, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels should be whole numbers"):
        compute_acc(MLP((48, 3), seed=1), IMAGES / 255, labels)


@pytest.mark.parametrize("num_samples", [0, -5])
def test_accuracy_of_no_sample(num_samples: int) -> None:
    with pytest.raises(
        ValueError, match=f"num_samples must be a whole number, at least 1; got {num_samples}"
    ):
        compute_acc(MLP((48, 3), seed=1), IMAGES / 255, LABELS, num_samples)


def test_all_is_on_one_backend(backend: Backend) -> None:
    model, here = MLP((48, 3), seed=1), Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    other = Backend("another", np)
    there = Batches.of(other, IMAGES, LABELS, "float64", MEAN)
    for loss, splits in (
        (CrossEntropy(), (there, here)),
        (CrossEntropy(), (here, there)),
        (CrossEntropy(backend=other), (here, here)),
    ):
        with pytest.raises(ValueError, match=f"should be on one backend; got .* on {other.name}"):
            fit(model, loss, SGD(model), *splits, batch_size=8, epochs=1, seed=0)


def test_batches_are_of_the_models_dtype(backend: Backend) -> None:
    model, split = MLP((48, 3), seed=1), Batches.of(backend, IMAGES, LABELS, "float32", MEAN)
    with pytest.raises(ValueError, match=r"batches should be float64, .*; got float32"):
        fit(model, CrossEntropy(), SGD(model), split, split, batch_size=8, epochs=1, seed=0)


def test_a_split_that_has_what_is_no_number_is_named() -> None:
    model = MLP((48, 3), seed=1, backend="numpy")
    good = Batches.of(model.backend, IMAGES / 255, LABELS, "float64")
    images = IMAGES / 255
    images[7] = np.nan
    bad = Batches.of(model.backend, images, LABELS, "float64")
    loss = CrossEntropy(backend="numpy")
    with pytest.raises(TrainingDiverged, match="loss over the validation split became nan after"):
        fit(model, loss, SGD(model), good, bad, batch_size=8, epochs=1, seed=0)


def test_numbers_that_are_none_from_the_start_are_not_the_learning_rates_fault() -> None:
    model = MLP((48, 3), seed=1, backend="numpy")
    split = Batches.of(model.backend, IMAGES * np.nan, LABELS, "float64")
    loss = CrossEntropy(backend="numpy")
    with pytest.raises(TrainingDiverged, match=r"nan at iteration 1: the images hold numbers"):
        fit(model, loss, SGD(model), split, split, batch_size=8, epochs=1, seed=0)
    model.net.params["fc1_b"][0] = np.nan
    good = Batches.of(model.backend, IMAGES, LABELS, "float64", MEAN)
    with pytest.raises(TrainingDiverged, match=r"nan at iteration 1: before any update"):
        fit(model, loss, SGD(model), good, good, batch_size=8, epochs=1, seed=0)


def test_one_image_that_is_no_number_is_not_the_learning_rates_fault() -> None:
    model = MLP((48, 3), seed=1, backend="numpy")
    images = IMAGES / 255
    images[epoch_order(50, 0, 1)[35]] = np.inf
    split = Batches.of(model.backend, images, LABELS, "float64")
    with pytest.raises(TrainingDiverged, match=r"nan at iteration 5: the images hold numbers"):
        fit(
            model,
            CrossEntropy(backend="numpy"),
            SGD(model),
            split,
            split,
            batch_size=8,
            epochs=1,
            seed=0,
        )


def test_the_learning_rate_decays_each_epoch_unless_told_otherwise(backend: Backend) -> None:
    history, _ = run(backend, lr_decay=0.5)
    assert [epoch.lr for epoch in history.epochs] == [0.1, 0.05, 0.025, 0.0125, 0.00625]


class Interrupting(Layer):
    """A layer that is interrupted, as by Ctrl-C, in its forwards of those numbers in training."""

    def __init__(self, *numbers: int) -> None:
        super().__init__("interrupting", backend="numpy")
        self.numbers, self.calls, self.after = numbers, 0, 0

    def forward(self, x):
        if self.is_training:
            self.calls += 1
            for _ in range(self.numbers.count(self.calls)):
                signal.raise_signal(signal.SIGINT)
            self.after = self.calls
        return x

    def backward(self, dout):
        return dout


def interrupted_parts(*numbers: int):
    model = MLP((48, 3), seed=1, backend="numpy")
    model.net.layers.append(layer := Interrupting(*numbers))
    split = Batches.of(model.backend, IMAGES, LABELS, "float64", MEAN)
    return layer, (model, CrossEntropy(backend="numpy"), Adam(model), split, split)


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Ctrl-C as Python has it."""
    if os.name != "posix":
        pytest.skip("sends itself signals")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


INTERRUPTED = {"batch_size": 8, "epochs": 3, "seed": 4, "lr_decay": 0.5}


class Lowering:
    """A watcher that lowers the learning rate, and ends training after an epoch."""

    def __init__(self, optimizer: Adam, last: int) -> None:
        self.optimizer, self.last = optimizer, last

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        self.optimizer.lr = 1e-3 * (1 - done / total)

    def epoch(self, number: int, epochs: int, history: History) -> None:
        if number == self.last:
            history.stopped = "enough"


@pytest.mark.usefixtures("keyboard")
def test_ctrl_c_waits_for_the_iterations_under_way() -> None:
    _, others = interrupted_parts()
    whole = fit(*others, **INTERRUPTED)
    _, own = interrupted_parts(1, 3, 12, 17)
    history = History()
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            fit(*own, **INTERRUPTED, history=history)
    fit(*own, **INTERRUPTED, history=history)
    assert (history.losses, history.epochs) == (whole.losses, whole.epochs)


@pytest.mark.usefixtures("keyboard")
def test_a_watcher_sees_what_is_done_before_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts_of(*numbers: int):
        _, own = interrupted_parts(*numbers)
        return own, {"chunk": 1, "watcher": Lowering(own[2], last=2), "history": History()}

    own, given = parts_of()
    whole = fit(*own, **INTERRUPTED, **given)
    own, given = parts_of(2, 9)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(*own, **INTERRUPTED, **given)
    parts = fit(*own, **INTERRUPTED, **given)
    assert (parts.losses, parts.epochs, parts.stopped) == (whole.losses, whole.epochs, "enough")

    def record(self, *given, record=History.record) -> None:
        record(self, *given)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(History, "record", record)
    own, given = parts_of()
    for stopped in ("", "enough"):
        with pytest.raises(KeyboardInterrupt):
            fit(*own, **INTERRUPTED, **given)
        assert given["history"].stopped == stopped


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize("place", ["a forward", "History.record", "Losses.record"])
def test_a_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    layer, own = interrupted_parts(*[3, 3] if place == "a forward" else [])
    history = History()
    for kind in (History, Losses):

        def twice(self, *given, record=kind.record, here=place == f"{kind.__name__}.record"):
            for _ in range(2 * here):
                signal.raise_signal(signal.SIGINT)
            record(self, *given)

        monkeypatch.setattr(kind, "record", twice)
    with pytest.raises(KeyboardInterrupt):
        fit(*own, **INTERRUPTED, history=history)
    assert place != "a forward" or (layer.calls, layer.after) == (3, 2)
    with pytest.raises(ValueError, match=r"the model and the optimizer may be ahead of it"):
        fit(*own, **INTERRUPTED, history=history)


@pytest.mark.usefixtures("keyboard")
def test_an_error_does_not_take_ctrl_cs_place() -> None:
    def diverge() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            raise TrainingDiverged("another", History())

    with pytest.raises(KeyboardInterrupt):
        diverge()


def parts(backend: Backend, optimizer: str):
    """A model with dropout, its loss, optimizer and the 50 images, for `fit`."""
    model = MLP((48, 16, 3), keep_prob=0.8, dropout_seed=4, seed=4, backend=backend)
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    return model, CrossEntropy(backend=backend), OPTIMIZERS[optimizer](model), split, split


class Left(Exception):  # noqa: N818
    """Training was left."""


def leave(after: int):
    """A `pause` that leaves training the so-manieth time that it is called."""
    calls = count(1)

    def pause() -> None:
        if next(calls) == after:
            raise Left

    return pause


# Called after each chunk (6 iterations, 1 and 5 in the first epoch), each of the two evaluations'
# one batch, and each epoch.
@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 7, 11])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_training_goes_on_from_its_history(backend: Backend, optimizer: str, after: int) -> None:
    settings = {"batch_size": 8, "epochs": 3, "seed": 4, "lr_decay": 0.5, "lr_decay_every": 1}
    whole = fit(*(reference := parts(backend, optimizer)), **settings)
    own, history = parts(backend, optimizer), History()
    seen: list[Losses] = []

    class Watch:
        def iterations(self, done: int, total: int, losses: Losses) -> None:
            seen.append(losses)

        def epoch(self, number: int, epochs: int, history: History) -> None:
            pass

    with pytest.raises(Left):
        fit(*own, **settings, history=history, watcher=Watch(), pause=leave(after))
    seen[-1].read()
    fit(*own, **settings, history=history)
    assert history.losses == whole.losses
    assert history.epochs == whole.epochs
    assert history.best_epoch == whole.best_epoch
    for (name, p), (_, q) in zip(
        own[0].net.params.items(), reference[0].net.params.items(), strict=True
    ):
        assert np.array_equal(backend.to_numpy(p), backend.to_numpy(q))
        best = history.best_params[name], whole.best_params[name]
        assert np.array_equal(*map(backend.to_numpy, best))


def test_the_seconds_of_a_part_count_too() -> None:
    own, history = parts(load("numpy"), "SGD"), History()
    with pytest.raises(Left):
        fit(*own, batch_size=8, epochs=1, seed=4, history=history, pause=leave(2))
    assert history.seconds > 0


def test_a_history_with_an_optimizer_built_anew() -> None:
    backend, settings = load("numpy"), {"batch_size": 8, "epochs": 2, "seed": 4}
    history = fit(*parts(backend, "Adam"), **settings)
    said = "this history has 12 iterations, and the optimizer has taken 0 steps"
    with pytest.raises(ValueError, match=said):
        fit(*parts(backend, "Adam"), **settings | {"epochs": 3}, history=history)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_no_result_depends_on_the_chunks(chunk: int) -> None:
    backend = load("numpy")
    assert run(backend, chunk=chunk)[0].losses == run(backend)[0].losses


@pytest.mark.parametrize(("each", "largest"), [(1e-4, 32), (0.02, 16), (0.7, 1)])
def test_calls_do_not_run_ahead_of_a_device(
    each: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """each: s that the device takes for an iteration. A call takes a hundredth of that."""
    now, idle, waits = 0.0, 0.0, 0
    monkeypatch.setattr(training.time, "perf_counter", lambda: now)

    def wait() -> None:
        nonlocal now, waits
        now, waits = max(now, idle), waits + 1

    pace, behind, sizes, done = Pace(32, wait), [], [], 0
    while done < 20_000:
        sizes.append(pace.size)
        with pace.timed(pace.size):
            now += sizes[-1] * each / 100
            idle = max(now, idle) + sizes[-1] * each
        done += sizes[-1]
        behind.append(idle - now)
    assert sizes[:2] == [1, largest]
    assert set(sizes[1:]) == {largest}
    assert max(behind) <= max(0.5, each)
    assert waits <= now / 0.25 + 2 or largest == 1


def test_losses_that_are_taken_away_are_counted() -> None:
    backend = load("numpy")
    taken: list[float] = []

    class Taking:
        def iterations(self, done: int, total: int, losses: Losses) -> None:
            taken.extend(losses.history.take(len(losses.read())))
            assert losses.history.iterations == done == len(taken)

        def epoch(self, number: int, epochs: int, history: History) -> None:
            assert history.losses == []

    history, _ = run(backend, watcher=Taking())
    assert taken == run(backend)[0].losses
    assert (history.losses, history.iterations) == ([], 30)


def test_a_history_of_another_run() -> None:
    with pytest.raises(
        ValueError, match=r"has 7 iterations, 0 of them in 0 whole epochs, and an epoch has 6"
    ):
        run(load("numpy"), history=History(losses=[1.0] * 7))
    with pytest.raises(TypeError, match=r"history should be a History, .* got list"):
        run(load("numpy"), history=[1.0])


def test_a_history_of_other_batches(backend: Backend) -> None:
    own, settings = parts(backend, "SGD"), {"seed": 4, "epochs": 2}
    history = fit(*own, **settings, batch_size=8)
    with pytest.raises(
        ValueError, match=r"12 iterations, 12 of them in 2 whole epochs, and an epoch has 5"
    ):
        fit(*own, **settings | {"epochs": 3}, batch_size=10, history=history)


def test_a_history_that_the_model_is_ahead_of(backend: Backend) -> None:
    own, history = parts(backend, "SGD"), History()
    update, calls = own[2].update, count(1)

    def leave_the_third(*arguments) -> None:  # of a step's four
        if next(calls) == 11:
            raise Left
        update(*arguments)

    own[2].update = leave_the_third
    with pytest.raises(Left):
        fit(*own, seed=4, batch_size=8, epochs=3, history=history)
    with pytest.raises(ValueError, match="the model and the optimizer may be ahead of it"):
        fit(*own, seed=4, batch_size=8, epochs=3, history=history)


def test_rows_that_are_held_let_epochs_be_added() -> None:
    history, _ = run(load("numpy"), epochs=1)
    rows = history.epochs.rows
    history.epochs.append(history.epochs[0])
    assert rows.shape == (1, 6)
    assert history.epochs.rows.tolist() == 2 * rows.tolist()


# The validation accuracies, patience, min_delta, and the epochs that are trained.
STOPPING = [
    ([0.1, 0.2, 0.3, 0.4], 1, 0.0, 4),
    ([0.1, 0.1, 0.3, 0.4], 1, 0.0, 2),
    ([0.1, 0.1, 0.3, 0.3, 0.2, 0.9], 2, 0.0, 5),
    ([0.5, 0.51, 0.52, 0.53], 2, 0.05, 3),
    ([0.5, 0.53, 0.56, 0.57], 2, 0.05, 4),  # 0.56 is more than 0.05 above 0.5, not above 0.53
    ([0.5, 0.4, 0.4, 0.4], None, 0.0, 4),
]


@pytest.mark.parametrize(("accuracies", "patience", "min_delta", "trained"), STOPPING)
def test_early_stopping(
    monkeypatch: pytest.MonkeyPatch,
    accuracies: list[float],
    patience: int | None,
    min_delta: float,
    trained: int,
) -> None:
    scores = iter([score for val in accuracies for score in ((1.0, 0.9), (1.0, val))])
    monkeypatch.setattr("mlpkit.training.score_all", lambda *_, **settings: next(scores))
    history, _ = run(load("numpy"), epochs=len(accuracies), patience=patience, min_delta=min_delta)
    assert [epoch.val_acc for epoch in history.epochs] == accuracies[:trained]
    assert history.best_epoch == 1 + int(np.argmax(accuracies[:trained]))
    assert bool(history.stopped) == (trained < len(accuracies))


def test_what_ended_training_is_forgotten_where_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpkit.training.score_all", lambda *_, **settings: (1.0, 0.5))
    history, _ = run(load("numpy"), epochs=4, patience=1)
    assert (len(history.epochs), bool(history.stopped)) == (2, True)
    run(load("numpy"), epochs=4, history=history)
    assert (len(history.epochs), history.stopped) == (4, "")


def test_batches_take_a_backend_and_a_dtype_as_networks_do(backend: Backend) -> None:
    model = MLP((48, 3), seed=1, dtype=np.float32)  # type: ignore[arg-type]
    split = Batches.of(backend.name, IMAGES, LABELS, np.float32, MEAN)  # type: ignore[arg-type]
    assert (split.backend.name, split.dtype) == (backend.name, "float32")
    settings = {"batch_size": 8, "epochs": 1, "seed": 0}
    assert fit(model, CrossEntropy(), SGD(model), split, split, **settings).epochs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patience": 0}, "patience must be a whole number, at least 1; got 0"),
        ({"min_delta": -0.1}, "min_delta must be at least 0 and finite; got -0.1"),
        ({"min_delta": float("nan")}, "min_delta must be at least 0 and finite; got nan"),
    ],
)
def test_patience_out_of_range(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(load("numpy"), **settings)
