"""NumPy arrays with whole training steps compiled by numba."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np

from . import aligned
from .base import Array, Step
from .cpu import NumpyBackend
from .errors import BackendUnavailable
from .plan import OPS, UPDATES, Plan, Program
from .threads import processors

# How often OpenMP's threads look again before they sleep, if the user hasn't said. Its default of
# 300,000 is as fast where nothing else runs; beside a process that keeps one of two processors
# busy, FullyConnectedNetwork fell from 1900 iterations per second to 80 with it, to 800 with this.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

try:
    import numba
    from threadpoolctl import ThreadpoolController

    from .kernels.gemm import gemm_address
    from .kernels.steps import ROWS, run
except ImportError as error:
    raise BackendUnavailable(
        f'numba can\'t be loaded ({error}): pip install "mlpkit[fast]"'
    ) from error


class NumbaBackend(NumpyBackend):
    """NumPy's ops one at a time; whole steps compiled, on kept buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "numba"

    def build(self, plan: Plan, program: Program) -> Step:
        return CompiledStep(plan, program)


class CompiledStep:
    """The buffers of a plan's step, and the call that runs it."""

    how = "compiled by numba"

    def __init__(self, plan: Plan, program: Program) -> None:
        blocks, n, dtype = program.blocks, plan.batch_size, plan.dtype
        self.program, self.dtype = program, dtype
        self.gemm = gemm_address(dtype)  # loads SciPy's BLAS, which the controller then finds
        self.blas = ThreadpoolController().select(user_api="blas")
        self.workers = min(processors(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        widths = [blocks[0].w.shape[0], *(block.w.shape[1] for block in blocks)]
        mean = np.empty(0, dtype) if plan.mean is None else np.ravel(plan.mean)
        images = np.ascontiguousarray(plan.images).reshape(len(plan.images), -1)
        self.data = (images, plan.labels, mean)
        self.parameters = (
            tuple(block.w for block in blocks),
            tuple(as_row(block.b) for block in blocks),
            states([(block.w, block.w_state) for block in blocks]),
            states([(as_row(b.b), tuple(map(as_row, b.b_state))) for b in blocks]),
        )
        outputs = [(n, width) for width in widths[1:]]
        self.buffers = (
            np.array([OPS.index(block.op or "") for block in blocks]),
            np.array([block.alpha_and_scale() for block in blocks]),
            tuple(np.empty(shape, np.bool_) for shape in outputs),
            tuple(aligned.empty(shape, dtype) for shape in outputs),
            tuple(aligned.empty((n, width), dtype) for width in widths),
            tuple(aligned.empty(shape, dtype) for shape in outputs),
            aligned.empty((self.workers, ROWS * max(widths[1:])), dtype),
            np.array([b.dropout.keep_prob if b.dropout else 0.0 for b in blocks]),
        )
        self(np.empty((0, n), np.int64))  # compiles, or loads what an earlier run compiled

    def __call__(self, order: Array) -> Array:
        dropouts = [block.dropout for block in self.program.blocks]
        keys = np.array(
            [(d.seed, d.position, d.step) if d else (0, 0, 0) for d in dropouts], dtype=np.uint64
        )
        losses = np.empty(len(order), self.dtype)
        schedule = self.program.schedule(len(order))
        with self.threads():
            run(
                self.gemm,
                *self.data,
                np.ascontiguousarray(order),
                *self.parameters,
                *self.buffers,
                keys,
                self.program.average,
                UPDATES.index(self.program.update),
                schedule,
                self.workers,
                losses,
            )
        for dropout in dropouts:
            if dropout:
                dropout.step += len(order)
        return losses

    @contextmanager
    def threads(self) -> Iterator[None]:
        """The workers are the threads, and BLAS has none of its own; afterwards all is as it was.
        One step at a time in a process."""
        with one_at_a_time, self.blas.limit(limits=1):
            before = numba.get_num_threads()
            numba.set_num_threads(self.workers)
            try:
                yield
            finally:
                numba.set_num_threads(before)


one_at_a_time = Lock()  # BLAS's number of threads is the whole process's


def as_row(b: Array) -> Array:
    """A vector (M,) as a matrix of one row, in the same memory."""
    return b.reshape(1, -1)


def states(pairs: list[tuple[Array, tuple[Array, ...]]]) -> tuple[tuple[Array, ...], ...]:
    """Two arrays of state for each parameter; the parameter stands in for one that isn't."""
    return tuple(tuple(state[i] if i < len(state) else w for w, state in pairs) for i in range(2))
