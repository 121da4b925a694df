"""Captured steps, run by a double of the device, against the same steps run op by op."""

from __future__ import annotations

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
from mlpkit_backends.captured import STEPS
from tests.cuda_double import CapturedBackend, DeviceDouble, kernels

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


def train(make, optimizer: str, dtype: str, eager: bool, epochs: int = 3, **given):
    """The history, parameters and optimizer of a training on the double, and its backend."""
    backend = CapturedBackend()
    model = make(backend, dtype)
    rule = OPTIMIZERS[optimizer](model)
    data = {"images": IMAGES, "mean": MEAN} | given
    split = Batches.of(backend, **data, labels=LABELS, dtype=dtype)
    if eager:
        model.forward = Module.forward.__get__(model)
    settings = {"batch_size": 8, "epochs": epochs, "seed": 0, "lr_decay": 0.5, "lr_decay_every": 1}
    history = fit(model, CrossEntropy(backend=backend), rule, split, split, **settings)
    assert len(backend.steps) == (0 if eager else 1)
    return history, dict(model.parameters()), rule, backend


def assert_alike(make, optimizer: str = "SGD", dtype: str = "float64", **given) -> None:
    """Captured and eager training give the same losses, parameters and state."""
    tolerance = TOLERANCE[dtype]
    one = train(make, optimizer, dtype, eager=True, **given)
    two = train(make, optimizer, dtype, eager=False, **given)
    np.testing.assert_allclose(two[0].losses, one[0].losses, rtol=tolerance)
    for name, p in one[1].items():
        np.testing.assert_allclose(two[1][name], p, rtol=tolerance, atol=tolerance)
    for state, other in zip(one[2].states(), two[2].states(), strict=True):
        for name, array in state.items():
            np.testing.assert_allclose(other[name], array, rtol=tolerance, atol=tolerance)
    assert one[2].settings() == two[2].settings()


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
    for (name, p), (_, q) in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-11, err_msg=name)
    assert sorted(step.graphs) == [5, STEPS]


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
    device = step.device
    assert isinstance(device, DeviceDouble)
    owned = step.owned()
    for array in device.written:
        assert any(np.shares_memory(array, own) for own in owned if own.size)
    # What the host writes between runs is read alone by the graph.
    for array in (step.order, step.table, step.scalars, step.keys, plan.images, plan.labels):
        assert not any(np.shares_memory(array, written) for written in device.written)


def test_sgd_and_momentum_make_no_gradient_of_the_weights() -> None:
    for optimizer, launches in ((SGD, "update_weights"), (SGDM, "update_weights")):
        plan, _ = plan_of(CapturedBackend(), optimizer)
        step = CapturedBackend().build(plan, plan.program)
        step(np.arange(8).reshape(1, 8))
        assert step.dw.size == 0
        assert launches not in step.device.names


def test_the_nodes_of_a_step() -> None:
    plan, _ = plan_of(CapturedBackend(), SGD, widths=(48, 48, 5))
    step = CapturedBackend().build(plan, plan.program)
    step(np.arange(8).reshape(1, 8))
    assert step.device.names == [
        *("gather_pixels", "gemm", "forward_elements", "gemm", "forward_elements"),
        *("loss_and_gradient", "gemm", "update_bias", "gemm"),
        *("backward_elements", "update_bias", "gemm"),
    ]


def test_the_double_refuses_what_a_recording_stream_refuses() -> None:
    device = DeviceDouble("float64")
    a = device.empty((2, 2), "float64")
    for work in (
        lambda: device.empty((2,), "float64"),
        lambda: device.fill(a, np.ones((2, 2))),
        lambda: device.copy(a),
        lambda: a + 1,
        lambda: np.concatenate([a, a]),
        lambda: device.launch("add_velocity", 4, a, a),
        lambda: device.launch("add_velocity", 4, a, a, np.int32(4)),
        lambda: device.launch("add_velocity", 4, a, a.astype("float32"), 4),
    ):
        with pytest.raises(AssertionError):
            device.record(work)


def test_all_kernels_are_used() -> None:
    used = {"row_losses", "row_gradients"}  # by the eager ops
    for optimizer, given in ((Adam, {}), (SGDM, {})):
        plan, _ = plan_of(CapturedBackend(), optimizer, **given)
        step = CapturedBackend().build(plan, plan.program)
        step(np.arange(8).reshape(1, 8))
        used |= set(step.device.names)
    floats = (IMAGES / 255).astype("float64")
    backend = train(mlp(), "SGD", "float64", eager=False, images=floats, mean=None)[3]
    used |= set(backend.steps[0].device.names)
    assert used == set(kernels()) | {"gemm"}
