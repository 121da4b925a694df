"""Compiled steps against the same steps run op by op, and the kernels against the base's ops."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mlpkit import (
    ELU,
    MLP,
    SELU,
    SGD,
    SGDM,
    Adam,
    Batches,
    CrossEntropy,
    Dropout,
    Flatten,
    FullyConnected,
    Layer,
    LeakyReLU,
    Module,
    ReLU,
    RMSProp,
    Sequential,
    Sigmoid,
    Tanh,
    fit,
)
from mlpkit.planning import make_plan
from mlpkit_backends import Backend, BackendUnavailable, load

RNG = np.random.default_rng(2)
IMAGES = RNG.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 5, 40)
MEAN = IMAGES.mean(axis=0) / 255
OPTIMIZERS = {
    "SGD": lambda net: SGD(net, 0.1),
    "SGDM": lambda net: SGDM(net, 0.05, 0.9),
    "RMSProp": lambda net: RMSProp(net, 1e-3),
    "Adam": lambda net: Adam(net, 1e-3, t=2),
}
# Widths below and above the size from which workers share a weight matrix.
WIDTHS = {"small": (48, 24, 16, 5), "large": (48, 400, 400, 5)}


def compiled() -> Backend:
    """The backend with compiled steps, or a skip with the reason."""
    try:
        return load("numba")
    except BackendUnavailable as error:
        pytest.skip(str(error))


def train(make, optimizer: str, backend: Backend, dtype: str, eager: bool, **data):
    """Three epochs of make(backend, dtype): the losses, the parameters and the optimizer."""
    model = make(backend, dtype)
    optimizer = OPTIMIZERS[optimizer](model)
    split = Batches.of(
        backend, **{"images": IMAGES, "mean": MEAN} | data, labels=LABELS, dtype=dtype
    )
    plan = make_plan(model, CrossEntropy(backend=backend), optimizer, split, 8)
    assert plan.program is not None
    step = Backend.compile(backend, plan) if eager else backend.compile(plan)
    rng = np.random.default_rng(1)
    losses = [step(rng.permutation(40)[:32].reshape(4, 8)) for _ in range(4)]
    return np.concatenate(losses), dict(model.parameters()), optimizer


def assert_alike(make, optimizer: str = "SGD", dtype: str = "float64", **data) -> None:
    """Compiled and eager training give the same losses, parameters and state."""
    tolerance = {"float64": 1e-12, "float32": 2e-5}[dtype]
    backend = compiled()
    one = train(make, optimizer, backend, dtype, eager=True, **data)
    two = train(make, optimizer, backend, dtype, eager=False, **data)
    np.testing.assert_allclose(two[0], one[0], rtol=tolerance)
    for name, p in one[1].items():
        np.testing.assert_allclose(two[1][name], p, rtol=tolerance, atol=tolerance)
    for state, other in zip(one[2].states(), two[2].states(), strict=True):
        for name, array in state.items():
            np.testing.assert_allclose(other[name], array, rtol=tolerance, atol=tolerance)
    assert one[2].settings() == two[2].settings()


def mlp(widths, **settings):
    """A maker of such an MLP."""
    return lambda backend, dtype: MLP(widths, seed=3, dtype=dtype, backend=backend, **settings)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer: str, widths: str, dtype: str) -> None:
    assert_alike(mlp(WIDTHS[widths]), optimizer, dtype)


@pytest.mark.parametrize("layer", [LeakyReLU, ReLU, ELU, SELU, Sigmoid, Tanh])
def test_every_activation_between_and_last(layer: type[Layer]) -> None:
    def make(backend: Backend, dtype: str) -> Module:
        net = Sequential(
            Flatten(backend=backend),
            FullyConnected(48, 16, 0.2, "a", seed=1, dtype=dtype, backend=backend),
            layer(name="f", backend=backend),
            FullyConnected(16, 5, 0.2, "b", seed=2, dtype=dtype, backend=backend),
            layer(name="g", backend=backend),
        )
        return Module(net, backend)

    assert_alike(make)
    assert_alike(make, dtype="float32")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_dropout_draws_the_same_masks(optimizer: str) -> None:
    assert_alike(mlp(WIDTHS["small"], keep_prob=0.6, dropout_seed=2**63 + 7), optimizer)


def test_dropout_steps_go_on_from_compiled_to_eager() -> None:
    backend = compiled()
    model = mlp((48, 8, 5), keep_prob=0.5, dropout_seed=4)(backend, "float64")
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    plan = make_plan(model, CrossEntropy(backend=backend), SGD(model, 0.1), split, 8)
    backend.compile(plan)(np.arange(24).reshape(3, 8))
    (dropout,) = [layer for layer in model.net.layers if isinstance(layer, Dropout)]
    assert dropout.step == 3


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_images_that_are_numbers_already(dtype: str) -> None:
    floats = (IMAGES / 255 - MEAN).astype(np.float32)
    assert_alike(mlp(WIDTHS["small"]), dtype=dtype, images=floats, mean=None)


def test_a_loss_that_is_summed() -> None:
    backend = compiled()
    model = mlp((48, 5))(backend, "float64")
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(size_average=False, backend=backend)
    plan = make_plan(model, loss, SGD(model, 1e-9), split, 8)
    order = np.arange(8).reshape(1, 8)
    np.testing.assert_allclose(backend.compile(plan)(order), Backend.compile(backend, plan)(order))


def test_extreme_scores_stay_finite() -> None:
    def make(backend: Backend, dtype: str) -> Module:
        net = Sequential(FullyConnected(48, 5, 1e4, "a", seed=1, dtype=dtype, backend=backend))
        return Module(net, backend)

    assert_alike(make, images=(IMAGES / 255).reshape(40, 48), mean=None)


def test_what_the_kernels_have_no_words_for_runs_eagerly() -> None:
    backend = compiled()

    class Doubled(LeakyReLU):
        def forward(self, x):
            return 2 * super().forward(x)

        def backward(self, dout):
            return 2 * super().backward(dout)

    def model_with(layer: Layer) -> Module:
        first, last = (FullyConnected(n, 5, 0.1, f"f{n}", backend=backend) for n in (48, 5))
        return Module(Sequential(Flatten(backend=backend), first, layer, last), backend)

    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(backend=backend)
    plain, doubled = (model_with(kind(backend=backend)) for kind in (LeakyReLU, Doubled))
    assert make_plan(plain, loss, SGD(plain), split, 8).program is not None
    assert make_plan(doubled, loss, SGD(doubled), split, 8).program is None
    history = fit(doubled, loss, SGD(doubled, 0.1), split, split, batch_size=8, epochs=1, seed=0)
    assert len(history.losses) == 5
    plain.forward = Module.forward.__get__(plain)
    assert make_plan(plain, loss, SGD(plain), split, 8).program is None


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_bits_every_time(dtype: str) -> None:
    backend = compiled()
    one, two = (train(mlp(WIDTHS["large"]), "Adam", backend, dtype, False) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert all(np.array_equal(p, two[1][name]) for name, p in one[1].items())


def test_a_step_allocates_nothing_that_grows_with_the_network() -> None:
    backend = compiled()
    model = mlp((48, 2000, 5))(backend, "float32")
    split = Batches.of(backend, IMAGES, LABELS, "float32", MEAN)
    plan = make_plan(model, CrossEntropy(backend=backend), Adam(model), split, 8)
    step, order = backend.compile(plan), np.arange(32).reshape(4, 8)
    step(order)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            step(order)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
    assert peak - before < 50_000  # the first weight matrix alone has 384,000 bytes


def test_images_of_another_width_name_the_layer_and_both() -> None:
    backend = compiled()
    model = mlp((12, 5))(backend, "float64")
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(backend=backend)
    with pytest.raises(ValueError, match=r"layer fc1 takes .* \(N, 12\); got \(8, 48\)"):
        fit(model, loss, SGD(model), split, split, batch_size=8, epochs=1, seed=0)
