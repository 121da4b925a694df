"""A training step put into a backend's words, and kept up with what is changed meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mlpkit_backends import Array, Backend
from mlpkit_backends.plan import Block, Plan, Program

from .evaluation import Batches
from .layers import (
    ELU,
    SELU,
    Activation,
    Dropout,
    Flatten,
    FullyConnected,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Tanh,
)
from .losses import CrossEntropy, check_value, gradient_of_scores, value_of
from .model import Module
from .optimizers import SGD, SGDM, Adam, Optimizer, RMSProp

ACTIVATIONS = (LeakyReLU, ReLU, ELU, SELU, Sigmoid, Tanh)


class CompiledTraining:
    """A function of batches' indices (K, N), as `Backend.compile` gives, compiled anew at a call
    where parameters, optimizer state or settings have been replaced since the last one."""

    def __init__(
        self,
        model: Module,
        loss_func: CrossEntropy,
        optimizer: Optimizer,
        batches: Batches,
        batch_size: int,
    ) -> None:
        self.backend = batches.backend
        self.make_plan = partial(make_plan, model, loss_func, optimizer, batches, batch_size)
        self.compile(self.make_plan())

    def compile(self, plan: Plan) -> None:
        """Make the step of the plan."""
        # The plan is held on to, so that no array's identity is given to another meanwhile.
        self.plan, self.built_in = plan, plan.built_in()
        self.step = self.backend.compile(plan)

    def __call__(self, order: Array) -> Array:
        plan = self.make_plan()
        if plan.built_in() != self.built_in:
            self.compile(plan)
        return self.step(order)


def make_plan(
    model: Module, loss_func: CrossEntropy, optimizer: Optimizer, batches: Batches, batch_size: int
) -> Plan:
    """The plan of training the model on batches; its program where all parts are this package's."""

    def eager(index: Array) -> Array:
        x, labels = batches.take(index)
        loss = value_of(loss_func)(model.forward(x, True), labels)
        check_value(loss)
        model.backward(gradient_of_scores(loss_func))
        optimizer.step()
        return loss

    return Plan(
        eager,
        batches.images,
        batches.labels,
        batches.mean,
        batches.dtype,
        batch_size,
        make_program(model, loss_func, optimizer, batches.backend),
    )


def make_program(
    model: Module, loss_func: CrossEntropy, optimizer: Optimizer, backend: Backend
) -> Program | None:
    """The step as data. None where a part is a class of the user's own, or changed on the object,
    whose formulas a compiled step would not know."""
    whole = type(model)
    if (whole.forward, whole.backward) != (Module.forward, Module.backward):
        return None
    if type(loss_func) is not CrossEntropy or optimizer.net is not model.net:
        return None
    if type(optimizer) not in (SGD, SGDM, RMSProp, Adam):
        return None
    if any(map(patched, (model, loss_func, optimizer, *model.net.layers))):
        return None
    blocks = make_blocks(model, optimizer, backend)
    if not blocks:
        return None
    model.net.place_dropouts()

    def schedule(k: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        rows = []
        for _ in range(k):
            optimizer.advance()
            rows.append((optimizer.lr, *optimizer.settings))
        return np.array(rows, dtype=np.float64).reshape(k, 1 + len(optimizer.settings))

    return Program(blocks, loss_func.size_average, optimizer.op, schedule)


def patched(part: Any) -> bool:
    """Whether the object has functions of its own in place of its class's."""
    return any(map(callable, vars(part).values()))


def make_blocks(model: Module, optimizer: Optimizer, backend: Backend) -> tuple[Block, ...]:
    """Flatten, then fully connected layers, each with an activation and dropout or without: as
    blocks. Empty where the layers are others or stand in another order."""
    layers = list(model.net.layers)
    if layers and type(layers[0]) is Flatten:
        layers.pop(0)
    blocks = []
    while layers:
        layer = layers.pop(0)
        if type(layer) is not FullyConnected or set(layer.params) != {layer.w_name, layer.b_name}:
            return ()
        w, b = layer.params[layer.w_name], layer.params[layer.b_name]
        activation = layers.pop(0) if layers and type(layers[0]) in ACTIVATIONS else None
        dropout = layers.pop(0) if layers and type(layers[0]) is Dropout else None
        blocks.append(
            Block(
                w,
                b,
                optimizer.state_of(backend, layer.w_name, w),
                optimizer.state_of(backend, layer.b_name, b),
                activation.op if isinstance(activation, Activation) else "",
                activation.settings if isinstance(activation, Activation) else (),
                dropout if isinstance(dropout, Dropout) and 0 < dropout.keep_prob < 1 else None,
            )
        )
    return tuple(blocks)
