"""Whole training steps with NumPy and SciPy alone, sparing the memory traffic of large weights.

The ops are the base's. What is saved is what costs most on a CPU: a new array of the weights' size
each step (its pages have to be mapped first), passes over it that leave the cache, and the gradient
of the images, which nothing needs. SGD's gradient is never stored: the product adds it to the
weights.
"""

from __future__ import annotations

import numpy as np

from . import aligned
from .base import Array, Backend
from .blas import add_product, product
from .plan import Block, Plan, Program

CACHED = 1 << 16  # elements of a parameter to update at a time


class BufferedStep:
    """The kept gradients of a plan's step, and the call that runs it."""

    how = "on kept buffers"

    def __init__(self, backend: Backend, plan: Plan, program: Program) -> None:
        self.backend, self.plan, self.program = backend, plan, program
        self.gradients = [
            None if program.update == "sgd_update" else aligned.empty(block.w.shape, plan.dtype)
            for block in program.blocks
        ]

    def __call__(self, order: Array) -> Array:
        losses = np.empty(len(order), self.plan.dtype)
        schedule = self.program.schedule(len(order))
        for k, index in enumerate(order):
            losses[k] = self.step(index, schedule[k].tolist())
        return losses

    def step(self, index: Array, row: list[float]) -> Array:
        """One iteration with the schedule's row; its loss."""
        backend, plan, blocks = self.backend, self.plan, self.program.blocks
        images = backend.gather(plan.images, index)
        x = images if plan.mean is None else backend.normalise(images, plan.mean)
        x = x.reshape(len(index), -1).astype(plan.dtype, copy=False)
        labels = backend.gather(plan.labels, index)
        kept = []
        for block in blocks:
            z = product(x, block.w)
            z += block.b
            h, mask = self.activate(block, z)
            kept.append((x, z, mask))
            x = h
        factor = self.program.loss_factor(len(index))
        loss = factor * np.sum(backend.softmax_cross_entropy(x, labels))
        d = factor * backend.softmax_cross_entropy_backward(x, labels)
        for i in range(len(blocks) - 1, -1, -1):
            block, (x, z, mask) = blocks[i], kept[i]
            if block.dropout is not None:
                d = backend.dropout(d, mask, block.dropout.keep_prob)
            if block.op:
                d = getattr(backend, f"{block.op}_backward")(d, z, *block.settings)
            dx = product(d, block.w.T) if i > 0 else None
            self.update(i, x, d, row)
            d = dx
        return loss

    def activate(self, block: Block, z: Array) -> tuple[Array, Array | None]:
        """The block's output from z = x w + b, and its dropout's mask."""
        h = getattr(self.backend, block.op)(z, *block.settings) if block.op else z
        if block.dropout is None:
            return h, None
        masks = block.dropout
        mask = self.backend.keep_mask(
            h.shape, masks.keep_prob, (masks.seed, masks.position, masks.step)
        )
        masks.step += 1
        return self.backend.dropout(h, mask, masks.keep_prob), mask

    def update(self, i: int, x: Array, d: Array, row: list[float]) -> None:
        """Update block i's parameters from its input x and the gradient d of its z."""
        block, dw = self.program.blocks[i], self.gradients[i]
        op = getattr(self.backend, self.program.update)
        op(block.b, d.sum(axis=0), *block.b_state, *row)
        if dw is None:
            add_product(-row[0], x, d, 1.0, block.w)
            return
        add_product(1.0, x, d, 0.0, dw)
        rows = max(1, CACHED // dw.shape[1])
        for first in range(0, len(dw), rows):
            part = slice(first, first + rows)
            op(block.w[part], dw[part], *(state[part] for state in block.w_state), *row)
