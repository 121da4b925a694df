"""A training step in parts: what a backend needs to know to compile one of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any  # an array of the backend's namespace

# The ops that kernels have numbers for, by their place: activations ("" for none) and updates.
OPS = ("", "leaky_relu", "relu", "elu", "selu", "sigmoid", "tanh")
UPDATES = ("sgd_update", "sgdm_update", "rmsprop_update", "adam_update")


class MaskSource(Protocol):
    """Dropout as it stands: the parts of its masks' key. A step advances `step` by one."""

    keep_prob: float
    seed: int
    position: int
    step: int


@dataclass(frozen=True, eq=False)
class Block:
    """x w + b, then an elementwise op, then dropout; the last two may be missing.

    op: the name of a base op, "" for none, and its settings. w_state, b_state: what the update
    keeps for each parameter, of its shape. All arrays are worked on in place.
    """

    w: Array
    b: Array
    w_state: tuple[Array, ...] = ()
    b_state: tuple[Array, ...] = ()
    op: str = ""
    settings: tuple[float, ...] = ()
    dropout: MaskSource | None = None

    def arrays(self) -> Iterator[tuple[Array, tuple[int, ...]]]:
        """Every array that a step writes, with the shape that it should have."""
        width = (self.w.shape[1],)
        yield from ((a, self.w.shape) for a in (self.w, *self.w_state))
        yield from ((a, width) for a in (self.b, *self.b_state))

    def with_states(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """w and b, each with the two arrays of state that kernels take: where the update keeps
        fewer, the parameter itself stands in."""
        w, b = (self.w, *self.w_state, self.w, self.w), (self.b, *self.b_state, self.b, self.b)
        return w[:3], b[:3]

    def alpha_and_scale(self) -> tuple[float, float]:
        """The op's settings as kernels take them; scale is 1 for all but selu."""
        alpha, scale = (*self.settings, *(0.0, 1.0)[len(self.settings) :])
        return alpha, scale


@dataclass(frozen=True, eq=False)
class Program:
    """The whole step: batches of flattened images through the blocks into softmax cross entropy,
    its mean or its sum, and the update of every parameter.

    update: the name of a base op. schedule(k) moves the optimizer on by k steps and returns a row
    for each, float64 (k, 1 + settings): the learning rate and the update's other settings.
    """

    blocks: tuple[Block, ...]
    average: bool
    update: str
    schedule: Callable[[int], np.ndarray[Any, np.dtype[np.float64]]]

    def loss_factor(self, n: int) -> float:
        """What the sum of n losses is multiplied by: 1 / n for the mean, 1 for the sum."""
        return 1.0 / n if self.average else 1.0


def span(a: Array) -> tuple[int, int]:
    """Where a contiguous array's memory begins and ends. Comparing `.base` wouldn't do: two arrays
    over one buffer, mapped file or foreign array have different ones."""
    interface = getattr(a, "__cuda_array_interface__", None) or a.__array_interface__
    start = interface["data"][0]
    return start, start + a.nbytes


@dataclass(frozen=True, eq=False)
class Plan:
    """What `Backend.compile` is given.

    eager(index): one iteration on the batch of those indices (N,), op by op; returns its loss.
    images (K, ...), labels (K,), mean (...) or None: the training split on the device, and where
    there is a mean, batches are images / 255 - mean. dtype: of the batches and losses.
    program: the step as data; None where the network, loss or optimizer has a part that this
    module has no words for, and only eager will do.
    """

    eager: Callable[[Array], Array]
    images: Array
    labels: Array
    mean: Array | None
    dtype: str
    batch_size: int
    program: Program | None

    def built_in(self) -> list[object]:
        """What a step compiled from the plan has built in: arrays, by identity, and settings. Where
        another plan of the same batches has the same, the step is good for it, too."""
        if self.program is None:
            return []
        parts: list[object] = [self.program.average, self.program.update]
        for block in self.program.blocks:
            parts += [id(a) for a, _ in block.arrays()]
            parts += [block.op, block.settings, id(block.dropout)]
            parts.append(block.dropout and block.dropout.keep_prob)
        return parts

    def misfit(self) -> str:
        """Why the step can't work in place on the arrays as they are, in words; "" where it can.

        What no backend could run, as images of another width, is a reason too: op by op, the layers
        then raise their own errors.
        """
        if self.program is None:
            return "a layer, loss or optimizer is of a kind that has no compiled form"
        if self.dtype not in ("float32", "float64"):
            return f"{self.dtype} has no compiled form; float32 and float64 have"
        blocks = self.program.blocks
        arrays = [pair for block in blocks for pair in block.arrays()]
        own = [a for a, _ in arrays]
        if any(tuple(a.shape) != tuple(shape) for a, shape in arrays):
            return "a bias or an optimizer's state doesn't have its parameter's shape"
        if any(a.dtype != self.dtype for a in own):
            return f"a parameter or its state isn't {self.dtype}, as the batches are"
        if not all(a.flags.c_contiguous for a in own):
            return "a parameter or its state isn't contiguous in memory"
        if any(end > start for (_, end), (start, _) in pairwise(sorted(map(span, own)))):
            return "two parameters, or their states, share memory"
        if not all(getattr(a.flags, "aligned", True) for a in own):
            return "a parameter or its state isn't aligned in memory"
        if not all(getattr(a.flags, "writeable", True) for a in own):
            return "a parameter or its state is read-only"
        shapes = [(math.prod(self.images.shape[1:]),), *(block.w.shape for block in blocks)]
        if any(before[-1] != after[0] for before, after in pairwise(shapes)):
            return "a layer's width isn't that of its input"
        return ""
