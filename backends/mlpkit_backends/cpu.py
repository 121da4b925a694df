"""NumPy on the host's processor."""

from __future__ import annotations

import math
import platform
from itertools import pairwise
from pathlib import Path

import numpy

from .base import Array, Backend, Step
from .plan import Plan, Program


class NumpyBackend(Backend):
    """The base ops on NumPy; whole steps on kept buffers."""

    def __init__(self) -> None:
        super().__init__("numpy", numpy)

    def device_name(self) -> str:
        return processor_name()

    # A new array costs more than the arithmetic, as its pages have to be mapped: one each here.

    def normalise(self, images: Array, mean: Array) -> Array:
        x = numpy.divide(images, 255, dtype=mean.dtype)
        x -= mean
        return x

    def affine(self, x: Array, w: Array, b: Array) -> Array:
        y = x @ w
        y += b
        return y

    def leaky_relu(self, x: Array, alpha: float) -> Array:
        if not 0 <= alpha <= 1:
            return super().leaky_relu(x, alpha)
        y = alpha * x
        return numpy.maximum(x, y, out=y)

    def compile(self, plan: Plan) -> Step:
        if plan.program is None or not fits(plan, plan.program):
            return super().compile(plan)
        return self.build(plan, plan.program)

    def build(self, plan: Plan, program: Program) -> Step:
        """The step of a program whose arrays fit."""
        from .buffered import BufferedStep

        return BufferedStep(self, plan, program)


def fits(plan: Plan, program: Program) -> bool:
    """Whether the kernels can work on the arrays as they are. What doesn't fit at all, as images of
    another width, is for the layers to name."""
    shapes = [(math.prod(plan.images.shape[1:]),), *(block.w.shape for block in program.blocks)]
    arrays = [a for b in program.blocks for a in (b.w, b.b, *b.w_state, *b.b_state)]
    return all(a.dtype == plan.dtype and a.flags.c_contiguous for a in arrays) and all(
        before[-1] == after[0] for before, after in pairwise(shapes)
    )


def processor_name() -> str:
    """The processor's model, or its architecture where the system doesn't say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
