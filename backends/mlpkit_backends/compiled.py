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
from .threads import thread_count

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

    def library_threads(self) -> dict[str, int]:
        return super().library_threads() | {"numba": workers()}

    def build(self, plan: Plan, program: Program) -> Step:
        return CompiledStep(plan, program)


def workers() -> int:
    """How many threads a step has: numba refuses more than it began with."""
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return min(thread_count(), most)


class CompiledStep:
    """The buffers of a plan's step, and the call that runs it."""

    how = "compiled by numba"

    def __init__(self, plan: Plan, program: Program) -> None:
        blocks, n, dtype = program.blocks, plan.batch_size, plan.dtype
        self.program, self.dtype = program, dtype
        self.gemm = gemm_address(dtype)  # loads SciPy's BLAS, which the controller then finds
        self.blas = ThreadpoolController().select(user_api="blas")
        self.workers = workers()
        mean = np.empty(0, dtype) if plan.mean is None else np.ravel(plan.mean)
        images = np.ascontiguousarray(plan.images, None if plan.mean is not None else dtype)
        images = images.reshape(len(images), -1)
        self.data = (images, plan.labels, mean)
        parts, x = [], aligned.empty((n, blocks[0].w.shape[0]), dtype)
        for block in blocks:
            outputs = (n, block.w.shape[1])
            z, h, d = (aligned.empty(outputs, dtype) for _ in range(3))
            mask = np.empty(outputs, np.bool_)
            w, b = block.with_states()
            parts.append((*w, *map(as_row, b), x, z, h, mask, d))
            x = h
        self.parts = parts  # whose memory the table names
        self.table = np.array([[(a.ctypes.data, *a.shape) for a in block] for block in parts])
        self.settings = (
            np.array([OPS.index(block.op) for block in blocks]),
            np.array([block.alpha_and_scale() for block in blocks]),
            np.array([b.dropout.keep_prob if b.dropout else 0.0 for b in blocks]),
        )
        widest = max(block.w.shape[1] for block in blocks)
        self.dw = aligned.empty((self.workers, ROWS * widest), dtype)
        self(np.empty((0, n), np.int64))  # compiles, or loads what an earlier run compiled

    def __call__(self, order: Array) -> Array:
        self.check_labels(order)
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
                self.table,
                *self.settings,
                keys,
                self.dw,
                self.program.loss_factor(order.shape[1]),
                UPDATES.index(self.program.update),
                schedule,
                self.workers,
                losses,
            )
        for dropout in dropouts:
            if dropout:
                dropout.step += len(order)
        return losses

    def check_labels(self, order: Array) -> None:
        """IndexError where a label of these examples has no score: it may have been changed since
        training began, and compiled code would read and write beside its arrays."""
        labels, classes = self.data[1][order], self.program.blocks[-1].w.shape[1]
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise IndexError(
                f"labels should be in 0..{classes - 1}, as when training began; "
                f"got {labels.min()}..{labels.max()}"
            )

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
