"""How far a backend is from the base's ops on NumPy, and from itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.turns import largest_relative_error
from mlpkit.evaluation import Batches
from mlpkit.gradcheck import check_gradients, rel_error
from mlpkit.layers import (
    ELU,
    SELU,
    Flatten,
    FullyConnected,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Tanh,
)
from mlpkit.losses import CrossEntropy
from mlpkit.model import Module, Sequential
from mlpkit.networks import MLP
from mlpkit.optimizers import SGD, SGDM, Adam, RMSProp
from mlpkit.planning import make_plan
from mlpkit.seeding import epoch_order
from mlpkit.training import fit
from mlpkit_backends import Backend
from mlpkit_backends.base import EagerStep

Finding = tuple[str, float, float]  # what was compared, the error, and how large it may be
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda net: SGD(net, 0.1),
    "sgdm": lambda net: SGDM(net, 0.05, 0.9),
    "rmsprop": lambda net: RMSProp(net, 1e-3),
    "adam": lambda net: Adam(net, 1e-3),
}
IMAGES, BATCH = 640, 32


def error_by_largest(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest of b."""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def bits(a: Any, b: Any) -> float:
    """How many bits differ."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return float("inf")
    one, two = (np.ascontiguousarray(x).view(np.uint8) for x in (a, b))
    return float(np.unpackbits(one ^ two).sum())


def parity(backend: Backend) -> Iterator[Finding]:
    """Weights, order and masks in bits; outputs, gradients, losses and runs; whole steps."""
    host = Backend("numpy", np)
    yield from same_bits(backend, host)
    yield from same_gradients(backend, host)
    for optimizer in OPTIMIZERS:
        yield from same_training(backend, host, optimizer)
    yield from same_steps(backend)


def same_bits(backend: Backend, host: Backend) -> Iterator[Finding]:
    """What is the same on every backend by specification."""
    pair = [MLP((3072, 100, 10), seed=5, dtype="float32", backend=b) for b in (backend, host)]
    arrays = [[m.backend.to_numpy(p) for p in m.net.params.values()] for m in pair]
    yield "weights, bits that differ", sum(map(bits, *arrays)), 0
    order = epoch_order(IMAGES, 1, 2)
    yield (
        "the batches' order, bits that differ",
        bits(backend.to_numpy(backend.asarray(order)), order),
        0,
    )
    masks = 0.0
    for keep_prob in (0.25, 0.5, 0.9):
        for key in ((0, 0, 0), (1234, 7, 3), (2**64 - 1, 2, 2**40)):
            one, two = (b.keep_mask((63, 3071), keep_prob, key) for b in (backend, host))
            masks += bits(backend.to_numpy(one), two)
    yield "dropout masks, bits that differ", masks, 0


def same_gradients(backend: Backend, host: Backend) -> Iterator[Finding]:
    """A small network's outputs, loss and gradients in float64, dropout in it."""
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((64, 12)), rng.integers(0, 5, 64)
    found = []
    for b in (backend, host):
        model = MLP((12, 16, 8, 5), keep_prob=0.7, seed=2, backend=b)
        loss = CrossEntropy(backend=b)
        plain = model.forward(b.asarray(x), False)
        value = loss.forward(model.forward(b.asarray(x), True), b.asarray(labels))
        model.backward(loss.backward())
        gradients = {n: g for layer in model.net.layers for n, g in layer.grads.items()}
        found.append({n: b.to_numpy(a) for n, a in ({"outputs": plain} | gradients).items()})
        found[-1]["loss"] = np.array(value)
    for name, expected in found[1].items():
        what = name if name in ("outputs", "loss") else f"gradient of {name}"
        yield f"float64 {what}", error_by_largest(found[0][name], expected), 1e-10
    model = MLP((12, 16, 8, 5), keep_prob=0.7, seed=2, backend=backend)
    errors = check_gradients(model, backend.asarray(x), backend.asarray(labels))
    yield "float64 gradients against numerical ones", max(errors.values()), 1e-6
    yield "rel_error of equal arrays", rel_error(x, x.copy(), backend=backend), 0


def same_training(backend: Backend, host: Backend, optimizer: str) -> Iterator[Finding]:
    """Losses beside NumPy's, and a run beside the same run."""
    one, two = (train(b, optimizer, "float64", 100)[0] for b in (backend, host))
    yield f"{optimizer}: float64 losses of 100 steps", largest_relative_error(one, two), 1e-10
    one, two = (train(b, optimizer, "float32", 60)[0][:50] for b in (backend, host))
    yield f"{optimizer}: float32 losses of 50 steps", largest_relative_error(one, two), 1e-4
    first, again = (train(backend, optimizer, "float32", 60) for _ in range(2))
    yield f"{optimizer}: two float32 runs, bits that differ", sum(map(bits, first, again)), 0


def random_images(classes: int = 10) -> tuple[Any, Any, Any]:
    """Small images uint8, their labels and their mean."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    return images, rng.integers(0, classes, IMAGES), images.mean(axis=0) / 255


def train(backend: Backend, optimizer: str, dtype: str, steps: int) -> list[Any]:
    """The losses and then the parameters of so many steps with dropout, on random images."""
    images, labels, mean = random_images()
    model = MLP((192, 100, 64, 10), keep_prob=0.8, seed=1, dtype=dtype, backend=backend)
    split = Batches.of(backend, images, labels, dtype, mean)
    rule, loss = OPTIMIZERS[optimizer](model), CrossEntropy(backend=backend)
    settings = {"batch_size": BATCH, "epochs": steps // (IMAGES // BATCH), "seed": 1}
    losses = np.array(fit(model, loss, rule, split, split, **settings).losses)
    return [losses, *(backend.to_numpy(p) for p in model.net.params.values())]


def activated(layer: type[Layer], dtype: str, backend: Backend) -> Module:
    """A network with such a layer between its products and last."""
    settings: dict[str, Any] = {"dtype": dtype, "backend": backend}
    return Module(
        Sequential(
            Flatten(backend=backend),
            FullyConnected(192, 36, 0.1, "a", seed=1, **settings),
            layer(name="f", backend=backend),
            FullyConnected(36, 10, 0.3, "b", seed=2, **settings),
            layer(name="g", backend=backend),
        )
    )


def same_steps(backend: Backend) -> Iterator[Finding]:
    """Whole steps beside the same op by op, over every kernel that a step may need: the losses and
    the parameters."""
    op_by_op = 0
    for dtype, limit in (("float64", 1e-10), ("float32", 1e-4)):

        def mlp(*widths: int, dtype: str = dtype) -> Module:
            return MLP(widths, keep_prob=0.8, seed=1, dtype=dtype, backend=backend)

        cases: dict[str, tuple[Callable[[], Module], dict[str, Any]]] = {
            layer.__name__: (lambda layer=layer, dtype=dtype: activated(layer, dtype, backend), {})
            for layer in (LeakyReLU, ReLU, ELU, SELU, Sigmoid, Tanh)
        }
        cases |= {rule: (lambda: mlp(192, 100, 64, 10), {"optimizer": rule}) for rule in OPTIMIZERS}
        cases |= {
            "images that are numbers": (lambda: mlp(192, 100, 10), {"floats": True}),
            "widths that fill nothing": (lambda: mlp(192, 7, 5, 10), {"optimizer": "adam"}),
            "40 classes": (lambda: mlp(192, 33, 40), {"classes": 40}),
            "600 classes": (lambda: mlp(192, 33, 600), {"classes": 600}),
            "wide layers": (lambda: mlp(192, 1024, 1024, 10), {}),
            "batches of 1": (lambda: mlp(192, 33, 10), {"batch": 1}),
            "batches of 70": (lambda: mlp(192, 33, 10), {"batch": 70}),
        }
        for what, (make, given) in cases.items():
            error, how = whole_beside_eager(backend, make, dtype, **given)
            op_by_op += how.startswith("op by op")
            yield f"{dtype}, {what}: steps {how} against op by op", error, limit
    yield "whole steps that ran op by op", op_by_op, 0


def whole_beside_eager(
    backend: Backend,
    make: Callable[[], Module],
    dtype: str,
    optimizer: str = "sgdm",
    floats: bool = False,
    classes: int = 10,
    batch: int = BATCH,
    steps: int = 9,
) -> tuple[float, str]:
    """How far the losses and parameters after so many whole steps are from those op by op, and how
    the whole ones ran. make: the network, anew; floats: the images as numbers, not uint8."""
    images, labels, mean = random_images(classes)
    numbers = (images / 255 - mean).astype(dtype)
    given = (numbers, labels, dtype) if floats else (images, labels, dtype, mean)
    order = backend.asarray(epoch_order(IMAGES, 1, 1)[: steps * batch].reshape(steps, batch))
    found = []
    for eager in (False, True):
        model, loss = make(), CrossEntropy(backend=backend)
        split = Batches.of(backend, *given)
        plan = make_plan(model, loss, OPTIMIZERS[optimizer](model), split, batch)
        step = EagerStep(backend, plan) if eager else backend.compile(plan)
        arrays = [step(order), *model.net.params.values()]
        found.append((step.how, [backend.to_numpy(a) for a in arrays]))
    (how, whole), (_, op_by_op) = found
    return max(map(error_by_largest, whole, op_by_op)), how


def checks(backend: Backend) -> Iterator[Finding]:
    """The assignment's sections, as `mlpkit check` has them: points that are lost, of none."""
    from mlpkit.grading.grading import grade_section
    from mlpkit.grading.local import reference
    from mlpkit.grading.sections import SECTIONS

    runner = reference(backend)
    for section in SECTIONS:
        result = grade_section(runner, section)
        for failure in result.failures:
            print(failure)
        yield f"{section.name}: points lost", result.points - result.score, 0
