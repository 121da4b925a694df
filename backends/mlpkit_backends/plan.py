"""A training step in parts: what a backend needs to know to compile one of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = Any


class MaskSource(Protocol):
    """Dropout as it stands: the parts of its masks' key. A step advances `step` by one."""

    keep_prob: float
    seed: int
    position: int
    step: int


@dataclass(frozen=True)
class Block:
    """x w + b, then an elementwise op, then dropout; the last two may be missing.

    op: the name of a base op and its settings. w_state, b_state: what the update keeps for each
    parameter, of its shape. All arrays are worked on in place.
    """

    w: Array
    b: Array
    w_state: tuple[Array, ...] = ()
    b_state: tuple[Array, ...] = ()
    op: str | None = None
    settings: tuple[float, ...] = ()
    dropout: MaskSource | None = None


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
