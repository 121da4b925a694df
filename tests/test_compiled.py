"""Compiled steps against the same steps run op by op, and the kernels against the base's ops."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

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
# Widths below and above the sizes from which workers share a weight matrix, by columns or by rows.
WIDTHS = {"small": (48, 24, 16, 5), "large": (48, 700, 800, 5), "narrow": (48, 2000, 70, 5)}


@pytest.fixture(params=["numpy", "numba"])
def compiled(request: pytest.FixtureRequest) -> Backend:
    """Each backend with steps of its own, or a skip with the reason."""
    try:
        chosen = load(request.param)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert type(chosen).compile is not Backend.compile
    return chosen


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
    return np.concatenate(losses), dict(model.net.params), optimizer


def assert_alike(
    backend: Backend, make, optimizer: str = "SGD", dtype: str = "float64", **data
) -> None:
    """Compiled and eager training give the same losses, parameters and state."""
    tolerance = {"float64": 1e-12, "float32": 2e-5}[dtype]
    one = train(make, optimizer, backend, dtype, eager=True, **data)
    two = train(make, optimizer, backend, dtype, eager=False, **data)
    np.testing.assert_allclose(two[0], one[0], rtol=tolerance)
    for name, p in one[1].items():
        np.testing.assert_allclose(two[1][name], p, rtol=tolerance, atol=tolerance)
    for kind, state in one[2].states.items():
        for name, array in state.items():
            np.testing.assert_allclose(
                two[2].states[kind][name], array, rtol=tolerance, atol=tolerance
            )
    assert one[2].settings == two[2].settings


def mlp(widths, **settings):
    """A maker of such an MLP."""
    return lambda backend, dtype: MLP(widths, seed=3, dtype=dtype, backend=backend, **settings)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(compiled: Backend, optimizer: str, widths: str, dtype: str) -> None:
    assert_alike(compiled, mlp(WIDTHS[widths]), optimizer, dtype)


def test_another_depth_runs_the_same_machine_code() -> None:
    pytest.importorskip("numba")
    from mlpkit_backends.kernels.steps import run

    backend, compiled = load("numba"), []
    for widths in ((48, 16, 5), (48, 16, 12, 9, 5)):
        train(mlp(widths), "SGD", backend, "float32", eager=False)
        compiled.append(len(run.signatures))
    assert compiled[0] == compiled[1] > 0


def with_layer(compiled: Backend, layer: type[Layer], scale: float, last: bool):
    """A maker of a network with that layer between, and last as well where it is to be."""

    def make(backend: Backend, dtype: str) -> Module:
        layers = [
            Flatten(backend=compiled),
            FullyConnected(48, 16, scale, "a", seed=1, dtype=dtype, backend=compiled),
            layer(name="f", backend=compiled),
            FullyConnected(16, 5, 0.2, "b", seed=2, dtype=dtype, backend=compiled),
            layer(name="g", backend=compiled),
        ]
        return Module(Sequential(*layers[: 5 if last else 4]))

    return make


@pytest.mark.parametrize("layer", [LeakyReLU, ReLU, ELU, SELU, Sigmoid, Tanh])
def test_every_activation_between_and_last(compiled: Backend, layer: type[Layer]) -> None:
    make = with_layer(compiled, layer, 0.2, last=True)
    assert_alike(compiled, make)
    assert_alike(compiled, make, dtype="float32")


@pytest.mark.parametrize("layer", [Sigmoid, Tanh])
def test_a_saturated_network_learns_the_same(compiled: Backend, layer: type[Layer]) -> None:
    """From inputs of 0..255, where 1 - s has no digits left."""
    make = with_layer(compiled, layer, 0.02, last=False)
    data = {"images": IMAGES.astype(np.float32), "mean": None}
    one, two = (train(make, "Adam", compiled, "float32", e, **data)[0] for e in (True, False))
    np.testing.assert_allclose(two, one, rtol=2e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_dropout_draws_the_same_masks(compiled: Backend, optimizer: str) -> None:
    assert_alike(compiled, mlp(WIDTHS["small"], keep_prob=0.6, dropout_seed=2**63 + 7), optimizer)


def test_dropout_steps_go_on_from_compiled_to_eager(compiled: Backend) -> None:
    model = mlp((48, 8, 5), keep_prob=0.5, dropout_seed=4)(compiled, "float64")
    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    plan = make_plan(model, CrossEntropy(backend=compiled), SGD(model, 0.1), split, 8)
    compiled.compile(plan)(np.arange(24).reshape(3, 8))
    after = Backend.compile(compiled, plan)(np.arange(16).reshape(2, 8))
    other = mlp((48, 8, 5), keep_prob=0.5, dropout_seed=4)(compiled, "float64")
    plan = make_plan(other, CrossEntropy(backend=compiled), SGD(other, 0.1), split, 8)
    order = np.concatenate([np.arange(24), np.arange(16)]).reshape(5, 8)
    np.testing.assert_allclose(after, Backend.compile(compiled, plan)(order)[3:], rtol=1e-12)
    (dropout,) = [layer for layer in model.net.layers if isinstance(layer, Dropout)]
    assert dropout.step == 5


def test_a_dropout_layer_put_in_later_draws_the_same_masks(compiled: Backend) -> None:
    def make(backend: Backend, dtype: str) -> Module:
        model = mlp((48, 8, 6, 5), keep_prob=0.5, dropout_seed=4)(backend, dtype)
        layers = model.net.layers
        at = layers.index(next(layer for layer in layers if isinstance(layer, Dropout)))
        layers[at] = Dropout(0.5, 4, "later", backend=backend)
        return model

    assert_alike(compiled, make)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_images_that_are_numbers_already(compiled: Backend, dtype: str) -> None:
    floats = (IMAGES / 255 - MEAN).astype(np.float32)
    assert_alike(compiled, mlp(WIDTHS["small"]), dtype=dtype, images=floats, mean=None)


def test_a_loss_that_is_summed(compiled: Backend) -> None:
    model = mlp((48, 5))(compiled, "float64")
    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(size_average=False, backend=compiled)
    plan = make_plan(model, loss, SGD(model, 1e-9), split, 8)
    order = np.arange(8).reshape(1, 8)
    np.testing.assert_allclose(
        compiled.compile(plan)(order), Backend.compile(compiled, plan)(order)
    )


def test_a_loss_of_many_examples(compiled: Backend) -> None:
    """log 10 from weights of 0: 50,000 of them, added one by one in float32, are 4e-4 off."""
    n = 50_000
    model = Module(Sequential(FullyConnected(3, 10, 0.0, "a", dtype="float32", backend=compiled)))
    split = Batches.of(compiled, np.ones((n, 3)), np.zeros(n, np.int64), "float32")
    loss = CrossEntropy(backend=compiled)
    step = compiled.compile(make_plan(model, loss, SGD(model, 1e-9), split, n))
    assert step(np.arange(n).reshape(1, n))[0] == pytest.approx(np.log(10), rel=1e-6)


def test_extreme_scores_stay_finite(compiled: Backend) -> None:
    def make(backend: Backend, dtype: str) -> Module:
        net = Sequential(FullyConnected(48, 5, 1e4, "a", seed=1, dtype=dtype, backend=compiled))
        return Module(net)

    images = (IMAGES / 255).reshape(40, 48)
    assert_alike(compiled, make, images=images, mean=None)
    losses, _, _ = train(make, "SGD", compiled, "float64", eager=False, images=images, mean=None)
    assert np.isfinite(losses).all()
    assert losses[0] > 1e3


def test_what_the_kernels_have_no_words_for_runs_eagerly(compiled: Backend) -> None:

    class Doubled(LeakyReLU):
        def forward(self, x):
            return 2 * super().forward(x)

        def backward(self, dout):
            return 2 * super().backward(dout)

    def model_with(layer: Layer) -> Module:
        first, last = (FullyConnected(n, 5, 0.1, f"f{n}", backend=compiled) for n in (48, 5))
        return Module(Sequential(Flatten(backend=compiled), first, layer, last))

    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(backend=compiled)
    plain, doubled = (model_with(kind(backend=compiled)) for kind in (LeakyReLU, Doubled))
    assert make_plan(plain, loss, SGD(plain), split, 8).program is not None
    assert make_plan(doubled, loss, SGD(doubled), split, 8).program is None
    history = fit(doubled, loss, SGD(doubled, 0.1), split, split, batch_size=8, epochs=1, seed=0)
    assert len(history.losses) == 5
    plain.forward = Module.forward.__get__(plain)
    assert make_plan(plain, loss, SGD(plain), split, 8).program is None


@pytest.mark.parametrize("part", ["model", "layer", "loss", "optimizer"])
def test_what_is_changed_on_an_object_runs_eagerly(compiled: Backend, part: str) -> None:
    model = mlp(WIDTHS["small"])(compiled, "float64")
    loss, optimizer = CrossEntropy(backend=compiled), SGD(model, 0.1)
    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    calls = []

    def watched(function):
        return lambda *given: calls.append(part) or function(*given)

    layer = model.net.layers[1]
    if part == "optimizer":
        optimizer.step = watched(optimizer.step)
    else:
        changed = {"model": model, "layer": layer, "loss": loss}[part]
        changed.backward = watched(changed.backward)
    fit(model, loss, optimizer, split, split, batch_size=8, epochs=1, seed=0)
    assert calls == [part] * 5


def first_block(model: Module, optimizer: SGDM) -> tuple[str, FullyConnected]:
    layer = model.net.layers[1]
    return layer.w_name, layer


def read_only(model: Module, optimizer: SGDM) -> None:
    name, layer = first_block(model, optimizer)
    layer.params[name].flags.writeable = False


def wrong_state(model: Module, optimizer: SGDM) -> None:
    name, _ = first_block(model, optimizer)
    optimizer.velocity = {name: np.zeros((2, 3))}


def wrong_bias(model: Module, optimizer: SGDM) -> None:
    _, layer = first_block(model, optimizer)
    layer.params[layer.b_name] = np.zeros(1)


@pytest.mark.parametrize("spoil", [read_only, wrong_state, wrong_bias])
def test_arrays_that_no_kernel_may_touch(compiled: Backend, spoil) -> None:
    model = mlp(WIDTHS["small"])(compiled, "float64")
    optimizer = SGDM(model, 0.1, 0.9)
    spoil(model, optimizer)
    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    before = {name: p.copy() for name, p in model.net.params.items()}
    loss = CrossEntropy(backend=compiled)
    with pytest.raises(ValueError, match=r"read-only|should have"):
        fit(model, loss, optimizer, split, split, batch_size=8, epochs=1, seed=0)
    if spoil is read_only:
        for name, p in model.net.params.items():
            if not p.flags.writeable:
                assert np.array_equal(p, before[name])


def test_one_array_as_two_layers_weights(compiled: Backend) -> None:
    def make(backend: Backend, dtype: str) -> Module:
        model = mlp((48, 9, 9, 9, 5))(backend, dtype)
        model.net.assign("fc3_w", model.net.get_params("fc2_w"))
        return model

    assert_alike(compiled, make)


def test_two_owners_of_one_memory(compiled: Backend) -> None:
    """As where two arrays are made of one buffer, or of another library's array."""

    def make(backend: Backend, dtype: str) -> Module:
        model = mlp((48, 9, 9, 9, 5))(backend, dtype)
        memory = bytearray(np.ascontiguousarray(model.net.get_params("fc2_w")))
        for layer in model.net.layers:
            layer.params |= {
                name: np.frombuffer(memory, dtype).reshape(9, 9)
                for name in layer.params
                if name in ("fc2_w", "fc3_w")
            }
        return model

    assert_alike(compiled, make)


def test_parameters_that_are_parts_of_one_vector(compiled: Backend) -> None:
    def make(backend: Backend, dtype: str) -> Module:
        model = mlp((48, 9, 5))(backend, dtype)
        vector = np.concatenate([p.ravel() for p in model.net.params.values()])
        first = 0
        for layer in model.net.layers:
            for name, p in layer.params.items():
                layer.params[name] = vector[first : first + p.size].reshape(p.shape)
                first += p.size
        return model

    assert_alike(compiled, make, "Adam")
    model = make(compiled, "float64")
    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    plan = make_plan(model, CrossEntropy(backend=compiled), SGD(model), split, 8)
    assert not plan.misfit()


def test_a_mean_for_each_channel(compiled: Backend) -> None:
    make, mean = mlp(WIDTHS["small"]), np.array([0.4, 0.5, 0.6])
    one = train(make, "SGD", compiled, "float64", eager=False, mean=mean)
    two = train(make, "SGD", compiled, "float64", eager=True, mean=np.tile(mean, (4, 4, 1)))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-12)


class Meddler:
    """Changes a network and its optimizer after the first epoch."""

    def __init__(self, change) -> None:
        self.change = change

    def iterations(self, *_: object) -> None:
        pass

    def epoch(self, number: int, *_: object) -> None:
        if number == 1:
            self.change()


def replaced_weights(model: Module, optimizer: SGDM) -> None:
    model.net.load({"fc1_w": np.zeros((48, 24))}, report=lambda line: None)


def replaced_velocity(model: Module, optimizer: SGDM) -> None:
    optimizer.velocity = {name: np.full(p.shape, 0.01) for name, p in model.net.params.items()}


def other_keep_prob(model: Module, optimizer: SGDM) -> None:
    for layer in model.net.layers:
        if isinstance(layer, Dropout):
            layer.keep_prob = 0.9


def other_slope(model: Module, optimizer: SGDM) -> None:
    for layer in model.net.layers:
        if isinstance(layer, LeakyReLU):
            layer.negative_slope = 0.5


@pytest.mark.parametrize(
    "change", [replaced_weights, replaced_velocity, other_keep_prob, other_slope]
)
def test_what_is_replaced_while_training_counts_from_then_on(compiled: Backend, change) -> None:
    def losses(eager: bool) -> list[float]:
        model = mlp(WIDTHS["small"], keep_prob=0.5, dropout_seed=1)(compiled, "float64")
        optimizer = SGDM(model, 0.1, 0.9)
        if eager:
            model.forward = Module.forward.__get__(model)
        split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
        watcher = Meddler(lambda: change(model, optimizer))
        loss = CrossEntropy(backend=compiled)
        settings = {"batch_size": 8, "epochs": 2, "seed": 0, "watcher": watcher}
        return fit(model, loss, optimizer, split, split, **settings).losses

    np.testing.assert_allclose(losses(False), losses(True), rtol=1e-12)


@pytest.mark.parametrize("wrong", [-1, 5, 5_000_000])
def test_labels_that_are_changed_while_training(wrong: int) -> None:
    pytest.importorskip("numba")
    compiled = load("numba")
    model, labels = mlp(WIDTHS["small"])(compiled, "float64"), LABELS.copy()
    split = Batches.of(compiled, IMAGES, labels, "float64", MEAN)
    watcher = Meddler(lambda: labels.fill(wrong))
    loss = CrossEntropy(backend=compiled)
    settings = {"batch_size": 8, "epochs": 2, "seed": 0, "watcher": watcher}
    with pytest.raises(IndexError, match=rf"labels should be in 0\.\.4, .*; got {wrong}\.\."):
        fit(model, loss, SGD(model, 0.1), split, split, **settings)


def test_two_threads_leave_blas_its_threads(compiled: Backend) -> None:
    def go() -> None:
        train(mlp(WIDTHS["large"]), "Adam", compiled, "float32", eager=False)

    def threads_of_blas() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        go()
        assert threads_of_blas() == {2}
        workers = [Thread(target=go) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert threads_of_blas() == {2}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("batch", "inputs", "columns"),
    [(64, 1300, 97), (61, 128, 101), (7, 5, 50), (8, 129, 47), (8, 20, 6), (3, 9, 4)],
)
def test_the_product_of_a_small_batch(batch: int, inputs: int, columns: int, dtype: str) -> None:
    pytest.importorskip("numba")
    from mlpkit_backends.kernels.gemm import gemm_address
    from mlpkit_backends.kernels.product import FEATURES, product

    if not FEATURES.get("fma"):
        pytest.skip("this processor has no fused multiply-add, which the tiles are made of")
    x = RNG.standard_normal((batch, inputs)).astype(dtype)
    w = RNG.standard_normal((inputs, columns)).astype(dtype)
    z = np.full((batch, columns), 7, dtype)
    product(gemm_address(dtype), x, w[:, 1:], z[:, 1:])
    expected = np.einsum("nd,dm->nm", x.astype(np.float64), w.astype(np.float64))
    tolerance = {"float64": 1e-13, "float32": 1e-5}[dtype] * inputs
    np.testing.assert_allclose(z[:, 1:], expected[:, 1:], rtol=tolerance, atol=tolerance)
    assert (z[:, 0] == 7).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("batch", "inputs", "columns"),
    [(64, 304, 1100), (61, 128, 96), (7, 5, 50), (8, 129, 47), (3, 9, 4)],
)
def test_the_gradient_of_a_small_batch(batch: int, inputs: int, columns: int, dtype: str) -> None:
    pytest.importorskip("numba")
    from mlpkit_backends.kernels.gemm import gemm_address
    from mlpkit_backends.kernels.product import FEATURES, add_gradient

    if not FEATURES.get("fma"):
        pytest.skip("this processor has no fused multiply-add, which the tiles are made of")
    x = RNG.standard_normal((batch, inputs)).astype(dtype)
    d = RNG.standard_normal((batch, columns)).astype(dtype)
    w = RNG.standard_normal((inputs, columns)).astype(dtype)
    expected = w - 0.25 * np.einsum("nd,nm->dm", x.astype(np.float64), d.astype(np.float64))
    rest = w[:2].copy()
    add_gradient(gemm_address(dtype), -0.25, x[:, 2:], d, w[2:])
    tolerance = {"float64": 1e-13, "float32": 1e-5}[dtype] * batch
    np.testing.assert_allclose(w[2:], expected[2:], rtol=tolerance, atol=tolerance)
    assert np.array_equal(w[:2], rest)


def test_small_changes_of_large_weights_are_not_lost() -> None:
    pytest.importorskip("numba")
    from mlpkit_backends.kernels.gemm import gemm_address
    from mlpkit_backends.kernels.product import FEATURES, add_gradient

    if not FEATURES.get("fma"):
        pytest.skip("this processor has no fused multiply-add, which the tiles are made of")
    # Each of 64 changes is less than half of what 1 can take in float32; together they are not.
    x, d, w = np.ones((64, 8), "f4"), np.full((64, 48), 2.0**-26, "f4"), np.ones((8, 48), "f4")
    add_gradient(gemm_address("float32"), 1.0, x, d, w)
    assert (w == np.float32(1 + 2.0**-20)).all()


def test_a_worker_without_rows_has_nothing_to_add() -> None:
    """Where a matrix has fewer rows than there are workers; its loop once never ended."""
    pytest.importorskip("numba")
    from mlpkit_backends.kernels.gemm import gemm_address
    from mlpkit_backends.kernels.product import add_gradient

    x, d = np.ones((8, 0), "f4"), np.ones((8, 64), "f4")
    add_gradient(gemm_address("float32"), 1.0, x, d, np.ones((0, 64), "f4"))


def test_a_weight_that_lies_askew_is_trained(compiled: Backend) -> None:
    """BLAS would be given a copy of it."""

    def train_on(place: Callable[[np.ndarray], np.ndarray]) -> tuple[list[float], str]:
        model = mlp((48, 24, 5))(compiled, "float64")
        for layer in model.net.layers:
            layer.params |= {name: place(p) for name, p in layer.params.items()}
        split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
        settings = {"batch_size": 8, "epochs": 3, "seed": 0}
        loss = CrossEntropy(backend=compiled)
        history = fit(model, loss, SGD(model, 0.1), split, split, **settings)
        return history.losses, history.how

    def askew(a: np.ndarray) -> np.ndarray:
        b = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        b[...] = a
        return b

    losses, how = train_on(askew)
    np.testing.assert_allclose(losses, train_on(np.copy)[0], rtol=1e-12)
    assert how == "op by op (a parameter or its state isn't aligned in memory)"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_bits_every_time(compiled: Backend, dtype: str) -> None:
    one, two = (train(mlp(WIDTHS["large"]), "Adam", compiled, dtype, False) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert all(np.array_equal(p, two[1][name]) for name, p in one[1].items())


def test_a_step_allocates_nothing_of_the_weights_size(compiled: Backend) -> None:
    model = mlp((48, 2000, 2000, 5))(compiled, "float32")
    split = Batches.of(compiled, IMAGES, LABELS, "float32", MEAN)
    plan = make_plan(model, CrossEntropy(backend=compiled), Adam(model), split, 8)
    step, order = compiled.compile(plan), np.arange(32).reshape(4, 8)
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
    # The second weight matrix has 16,000,000 bytes. NumPy's ops make a batch's activations and the
    # pieces of an update anew; numba's kernels make nothing.
    assert peak - before < {"numpy": 2_000_000, "numba": 50_000}[compiled.name]


def test_images_of_another_width_name_the_layer_and_both(compiled: Backend) -> None:
    model = mlp((12, 5))(compiled, "float64")
    split = Batches.of(compiled, IMAGES, LABELS, "float64", MEAN)
    loss = CrossEntropy(backend=compiled)
    with pytest.raises(ValueError, match=r"layer fc1 takes .* \(N, 12\); got \(1, 48\)"):
        fit(model, loss, SGD(model), split, split, batch_size=8, epochs=1, seed=0)
