"""NumPy on the host's processor."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy

from . import aligned
from .base import Array, Backend, EagerStep, Step
from .blas import product
from .plan import Plan, Program
from .threads import thread_count, use_threads


class NumpyBackend(Backend):
    """The base ops on NumPy; whole steps on kept buffers."""

    def __init__(self) -> None:
        super().__init__("numpy", numpy)
        use_threads()

    def device_name(self) -> str:
        return processor_name()

    def details(self) -> dict[str, str]:
        blas = sorted(f"{name} for {made_for}" for name, made_for in blas_libraries().items())
        return {
            "processor": processor_name(),
            "threads": str(thread_count()),
            "BLAS": ", ".join(blas),
        }

    def library_threads(self) -> dict[str, int]:
        return {pool["internal_api"]: pool["num_threads"] for pool in blas_pools()}

    # Arrays that are made here begin with a cache line.

    def asarray(self, a: Any, dtype: str | None = None) -> Array:
        a = numpy.asarray(a)
        return a if dtype is None or a.dtype == dtype else aligned.copy(a, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        new = aligned.empty(shape, dtype)
        new[...] = 0
        return new

    def zeros_like(self, a: Array) -> Array:
        return self.zeros(a.shape, a.dtype)

    def copy(self, a: Array) -> Array:
        return aligned.copy(a, a.dtype)

    # A new array costs more than the arithmetic, as its pages have to be mapped: one each here.

    def normalise(self, images: Array, mean: Array) -> Array:
        x = numpy.divide(images, 255, dtype=mean.dtype)
        x -= mean
        return x

    def affine(self, x: Array, w: Array, b: Array) -> Array:
        y = product(x, w)
        if y.dtype != b.dtype:
            return y + b
        y += b
        return y

    def affine_input_gradient(self, dy: Array, w: Array) -> Array:
        return product(dy, w.T)

    def affine_parameter_gradients(self, dy: Array, x: Array) -> tuple[Array, Array]:
        return product(x.T, dy), dy.sum(axis=0)

    def leaky_relu(self, x: Array, alpha: float) -> Array:
        if not 0 < alpha <= 1 or not x.ndim:  # 0 · ∞ is NaN
            return super().leaky_relu(x, alpha)
        y = alpha * x
        return numpy.maximum(x, y, out=y)

    def compile(self, plan: Plan) -> Step:
        program, why_not = plan.program, plan.misfit()
        if program is None or why_not:
            return EagerStep(self, plan, why_not)
        return self.build(plan, program)

    def build(self, plan: Plan, program: Program) -> Step:
        """The step of a program whose arrays fit."""
        from .buffered import BufferedStep

        return BufferedStep(self, plan, program)


def blas_libraries() -> dict[str, str | None]:
    """The processor that each BLAS was made for, of those that NumPy and SciPy bring."""
    return {
        f"{pool['internal_api']} {pool['version']}": pool.get("architecture")
        for pool in blas_pools()
    }


def blas_pools() -> list[dict[str, Any]]:
    """What threadpoolctl knows of each BLAS in this process."""
    from threadpoolctl import threadpool_info

    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]


def processor_name() -> str:
    """The processor's model, or its architecture where the system doesn't say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
