"""Captured steps, run by a double of the device, against the same steps run op by op."""

from __future__ import annotations

from dataclasses import replace

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
from mlpkit_backends import Backend
from mlpkit_backends.captured import SIZES, STEPS, CapturedStep
from tests.cuda_double import (
    CapturedBackend,
    DeviceDouble,
    assert_only_its_own_is_written,
    kernels,
)

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
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def train(
    make, optimizer: str, dtype: str, eager: bool, epochs: int = 3, kind=CapturedStep, **given
):
    """The history, parameters and optimizer of a training on the double, and its backend."""
    backend = CapturedBackend(kind)
    model = make(backend, dtype)
    rule = OPTIMIZERS[optimizer](model)
    data = {"images": IMAGES, "mean": MEAN} | given
    split = Batches.of(backend, **data, labels=LABELS, dtype=dtype)
    if eager:
        model.forward = Module.forward.__get__(model)
    settings = {"batch_size": 8, "epochs": epochs, "seed": 0, "lr_decay": 0.5, "lr_decay_every": 1}
    history = fit(model, CrossEntropy(backend=backend), rule, split, split, **settings)
    assert len(backend.steps) == (0 if eager else 1)
    return history, dict(model.net.params), rule, backend


def assert_alike(make, optimizer: str = "SGD", dtype: str = "float64", **given) -> None:
    """Captured and eager training give the same losses, parameters and state."""
    tolerance = TOLERANCE[dtype]
    one = train(make, optimizer, dtype, eager=True, **given)
    two = train(make, optimizer, dtype, eager=False, **given)
    np.testing.assert_allclose(two[0].losses, one[0].losses, rtol=tolerance)
    for name, p in one[1].items():
        np.testing.assert_allclose(two[1][name], p, rtol=tolerance, atol=tolerance)
    for kind, state in one[2].states.items():
        for name, array in state.items():
            np.testing.assert_allclose(
                two[2].states[kind][name], array, rtol=tolerance, atol=tolerance
            )
    assert one[2].settings == two[2].settings


def mlp(widths=(48, 24, 16, 5), **settings):
    """A maker of such an MLP."""
    return lambda backend, dtype: MLP(widths, seed=3, dtype=dtype, backend=backend, **settings)


@pytest.mark.parametrize("keep_prob", [0.0, 0.6])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer: str, dtype: str, keep_prob: float) -> None:
    assert_alike(mlp(keep_prob=keep_prob, dropout_seed=2**63 + 7), optimizer, dtype)


@pytest.mark.parametrize("layer", [LeakyReLU, ReLU, ELU, SELU, Sigmoid, Tanh])
def test_every_activation_between_and_last(layer: type[Layer]) -> None:
    def make(backend: Backend, dtype: str) -> Module:
        net = Sequential(
            Flatten(backend=backend),
            FullyConnected(48, 16, 0.2, "a", seed=1, dtype=dtype, backend=backend),
            layer(name="f", backend=backend),
            FullyConnected(16, 5, 0.2, "b", seed=2, dtype=dtype, backend=backend),
            layer(name="g", backend=backend),
            Dropout(0.5, 3, backend=backend),
        )
        return Module(net)

    assert_alike(make)
    assert_alike(make, dtype="float32")


@pytest.mark.parametrize("widths", [(48, 5), (48, 33, 70, 5)])
def test_widths_that_fill_no_block(widths: tuple[int, ...]) -> None:
    assert_alike(mlp(widths), "Adam")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_images_that_are_numbers_already(dtype: str) -> None:
    floats = (IMAGES / 255 - MEAN).astype(dtype)
    assert_alike(mlp(), dtype=dtype, images=floats, mean=None)


def plan_of(backend: Backend, optimizer=SGD, **settings):
    model = mlp(**settings)(backend, "float64")
    split = Batches.of(backend, IMAGES, LABELS, "float64", MEAN)
    plan = make_plan(model, CrossEntropy(backend=backend), optimizer(model), split, 8)
    return plan, model


def test_more_steps_than_a_graph_holds_and_a_remainder() -> None:
    order = np.random.default_rng(0).integers(0, 40, (2 * STEPS + 5, 8))
    (plan, model), (eager, other) = plan_of(CapturedBackend()), plan_of(CapturedBackend())
    step = CapturedBackend().build(plan, plan.program)
    losses = step(order)
    np.testing.assert_allclose(losses, Backend.compile(other.backend, eager)(order), rtol=1e-12)
    for (name, p), (_, q) in zip(model.net.params.items(), other.net.params.items(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-11, err_msg=name)


def test_a_seed_that_a_user_sets_between_runs_counts() -> None:
    order = np.arange(24).reshape(3, 8)
    captured, eager = (plan_of(CapturedBackend(), keep_prob=0.5, dropout_seed=1) for _ in range(2))
    steps = [
        CapturedBackend().build(captured[0], captured[0].program),
        Backend.compile(eager[1].backend, eager[0]),
    ]
    found = []
    for step, model in zip(steps, (captured[1], eager[1]), strict=True):
        first = step(order)
        for layer in model.net.layers:
            if isinstance(layer, Dropout):
                layer.seed, layer.step = 99, 5
        found.append(np.concatenate([first, step(order)]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


@pytest.mark.parametrize("optimizer", [SGD, SGDM, RMSProp, Adam])
def test_a_graph_writes_only_what_its_step_owns(optimizer) -> None:
    plan, _ = plan_of(CapturedBackend(), optimizer, keep_prob=0.5, dropout_seed=1)
    backend = CapturedBackend()
    step = backend.build(plan, plan.program)
    step(np.arange(16).reshape(2, 8))
    assert_only_its_own_is_written(step, step.matrices)


@pytest.mark.parametrize("optimizer", [SGD, SGDM])
def test_sgd_and_momentum_make_no_gradient_of_the_weights(optimizer) -> None:
    plan, _ = plan_of(CapturedBackend(), optimizer)
    assert CapturedBackend().build(plan, plan.program).dw == []


@pytest.mark.parametrize(("optimizer", "update"), [(SGD, []), (Adam, ["update_weights"])])
def test_the_nodes_of_a_step(optimizer, update: list[str]) -> None:
    plan, _ = plan_of(CapturedBackend(), optimizer, widths=(48, 48, 5))
    step = CapturedBackend().build(plan, plan.program)
    one = [
        *("gather_pixels", "gemm", "forward_elements", "gemm", "forward_elements"),
        *("loss_and_gradient", "backward_columns", "gemm", "gemm", "backward_columns", "gemm"),
        *update,
    ]
    assert {k: graph.names() for k, graph in step.graphs.items()} == {k: one * k for k in SIZES}


class Refusing(DeviceDouble):
    """A device that can't record."""

    def record(self, work) -> None:
        raise RuntimeError("not permitted while a stream records")


def test_a_step_that_cannot_be_recorded_has_changed_nothing() -> None:
    plan, model = plan_of(CapturedBackend(), Adam, keep_prob=0.5, dropout_seed=1)
    before = {name: p.copy() for name, p in model.net.params.items()}
    with pytest.raises(RuntimeError, match="not permitted"):
        CapturedStep(plan, plan.program, Refusing(plan.dtype))
    for name, p in model.net.params.items():
        assert np.array_equal(p, before[name]), name
    for block in plan.program.blocks:
        assert all((state == 0).all() for state in (*block.w_state, *block.b_state))
        assert block.dropout is None or block.dropout.step == 0
    assert plan.program.schedule(1)[0, -1] == 1  # the first of Adam's steps


def test_making_a_step_changes_nothing() -> None:
    plan, model = plan_of(CapturedBackend(), Adam, keep_prob=0.5, dropout_seed=1)
    before = {name: p.copy() for name, p in model.net.params.items()}
    CapturedBackend().build(plan, plan.program)
    for name, p in model.net.params.items():
        assert np.array_equal(p, before[name]), name
    assert plan.program.schedule(1)[0, -1] == 1


def test_arrays_as_they_come() -> None:
    """Images in Fortran's order, 32-bit labels and a mean for each channel alone."""
    order = np.random.default_rng(0).integers(0, 40, (3, 8))
    (plan, model), (usual, other) = plan_of(CapturedBackend()), plan_of(CapturedBackend())
    mean = np.array([0.4, 0.5, 0.6])
    odd = replace(plan, images=np.asfortranarray(IMAGES), labels=LABELS.astype(np.int32), mean=mean)
    usual = replace(usual, mean=np.broadcast_to(mean, (4, 4, 3)).copy())
    losses = [CapturedBackend().build(p, p.program)(order) for p in (odd, usual)]
    assert np.array_equal(*losses)
    for (name, p), (_, q) in zip(model.net.params.items(), other.net.params.items(), strict=True):
        assert np.array_equal(p, q), name


@pytest.mark.parametrize("optimizer", [SGDM, RMSProp, Adam])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_weights_that_no_four_of_are_aligned(optimizer, dtype: str) -> None:
    """Parameters one element into their memory, beside the same at its start."""
    order = np.random.default_rng(0).integers(0, 40, (3, 8))
    found = []
    for shift in (0, 1):
        backend = CapturedBackend()
        model = mlp((48, 7, 5))(backend, dtype)
        for layer in model.net.layers:
            for name, p in layer.params.items():
                room = backend.zeros((p.size + 1,), dtype)
                layer.params[name] = room[shift : p.size + shift].reshape(p.shape)
                layer.params[name][...] = p
        split = Batches.of(backend, IMAGES, LABELS, dtype, MEAN)
        plan = make_plan(model, CrossEntropy(backend=backend), optimizer(model), split, 8)
        step = backend.build(plan, plan.program)
        assert step.matrices[:, 5].tolist() == ([0, 0] if shift else [48 * 7 // 4, 7 * 5 // 4])
        step(order)
        found.append(list(model.net.params.values()))
    for p, q in zip(*found, strict=True):
        assert np.array_equal(p, q)


def test_the_double_refuses_what_a_recording_stream_refuses() -> None:
    device = DeviceDouble("float64")
    a, index, n = device.empty((2, 2), "float64"), device.empty((2,), "int64"), np.int32(2)

    def launch(*arguments) -> None:
        device.launch("gather_numbers", 4, *arguments)

    with pytest.raises(AssertionError, match="would be loaded"):
        device.record(lambda: launch(a, index, a, n, n))
    device.rehearse(lambda: launch(a, index, a, n, n))
    device.record(lambda: launch(a, index, a, n, n))
    for work in (
        lambda: device.empty((2,), "float64"),
        lambda: device.fill(a, np.ones((2, 2))),
        lambda: device.dense(a, (2, 2), "float64"),
        lambda: a + 1,
        lambda: np.concatenate([a, a]),
        lambda: launch(a, index, a, n),
        lambda: launch(a, index, a, n, 2),
        lambda: launch(a, index, a.astype("float32"), n, n),
        lambda: launch(a, index.astype("int32"), a, n, n),
    ):
        with pytest.raises(AssertionError):
            device.record(work)


def test_all_kernels_are_used() -> None:
    used = {"row_losses", "row_gradients"}  # by the eager ops
    plan, _ = plan_of(CapturedBackend(), Adam)
    floats = replace(plan, images=IMAGES / 255, mean=None)
    for given in (plan, floats):
        used |= set(CapturedBackend().build(given, given.program).graphs[1].names())
    assert used == set(kernels(fused=False)) | {"gemm"}
