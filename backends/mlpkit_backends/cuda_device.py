"""The device that `captured` runs on: CuPy's kernels and graphs, cuBLAS's products."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from .base import Array
from .cublas import WORKSPACE, Cublas
from .cuda_launch import can_overlap, launch_early

KERNELS = Path(__file__).parent / "kernels"
OPTIONS = ("-fmad=false",)  # the base's products and sums aren't fused either
THREADS = 256
# At most, in a grid: enough to fill any card; each thread then takes several elements, and reads an
# update's settings once.
BLOCKS = 1 << 12


def source(fused: bool = False) -> str:
    """step.cu, and where they are fused also the three files after it, in one: CuPy's cache of
    compiled code would not notice a change in an included file."""
    names = ("formulas.h", "step.cu", *(("fused.cu", "last.cu", "wide.cu") if fused else ()))
    return "\n".join((KERNELS / name).read_text() for name in names)


@cache
def module(dtype: str, fused: bool) -> Any:
    """The kernels for real = float or double, compiled for CuPy's current device when used."""
    import cupy

    real = {"float32": "float", "float64": "double"}[dtype]
    return cupy.RawModule(code=source(fused), options=(*OPTIONS, f"-DREAL={real}"))


@cache
def kernel(dtype: str, name: str, fused: bool = False) -> Any:
    """One of the kernels, which CuPy would make anew each time it is asked for."""
    return module(dtype, fused).get_function(name)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collector: a finalizer that frees a device's memory ends a recording."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class CudaDevice:
    """Kernels and products of one dtype, recorded as graphs, which run on CuPy's current stream.
    fused: with the kernels that fused steps need among them."""

    def __init__(self, dtype: str, fused: bool = False) -> None:
        import cupy

        self.xp, self.dtype, self.fused = cupy, dtype, fused
        attributes = cupy.cuda.Device().attributes
        self.processors = attributes["MultiProcessorCount"]
        self.shared = attributes["MaxSharedMemoryPerBlockOptin"]
        capability = int(cupy.cuda.Device().compute_capability)
        self.overlaps = can_overlap(capability, cupy.cuda.runtime.driverGetVersion())
        # Where work is recorded; CuPy allows none on its default stream.
        self.stream = cupy.cuda.Stream(non_blocking=True)
        workspace = cupy.empty(WORKSPACE, cupy.uint8)
        self.cublas = Cublas(self.stream, workspace)
        self.rehearsing = False

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return self.xp.zeros(shape, dtype)  # zeros: a rehearsal multiplies with them

    def dense(self, a: Array, shape: tuple[int, ...], dtype: str) -> Array:
        return self.xp.ascontiguousarray(self.xp.broadcast_to(a, shape), dtype)

    def address(self, a: Array) -> int:
        return int(a.data.ptr)

    def fill(self, target: Array, source: Any) -> None:
        if isinstance(source, self.xp.ndarray):
            self.xp.copyto(target, source)
        else:
            target.set(source, self.xp.cuda.get_current_stream())  # without waiting

    def launch(
        self,
        name: str,
        work: int | tuple[int, int, int],
        *arguments: Any,
        shared: int = 0,
        early: bool = False,
    ) -> None:
        function = kernel(self.dtype, name, self.fused)
        if self.rehearsing:  # loads it; graphs made before may need more than this one
            before = function.max_dynamic_shared_size_bytes
            function.max_dynamic_shared_size_bytes = max(shared, before)
            return
        if isinstance(work, int):
            work = min(-(-work // THREADS), BLOCKS), THREADS, 1
        if early and self.overlaps:
            stream = self.xp.cuda.get_current_stream().ptr
            launch_early(function.kernel.ptr, work, arguments, shared, stream)
            return
        blocks, width, height = work
        function((blocks,), (width, height), arguments, shared_mem=shared)

    def gemm(
        self, alpha: Array, a: Array, a_t: bool, b: Array, b_t: bool, beta: Array, c: Array
    ) -> None:
        if self.rehearsing:
            c = self.xp.zeros_like(c)
        self.cublas.gemm(alpha.data.ptr, a, a_t, b, b_t, beta.data.ptr, c)

    def try_out(self) -> None:
        """Load the kernels, record a product, as steps are made of, and run it. Raises what CUDA
        says."""
        kernel(self.dtype, "gather_pixels", self.fused).attributes  # noqa: B018 - loads it
        one = self.empty((1, 1), self.dtype)

        def work() -> None:
            self.gemm(one[0], one, False, one, False, one[0], one)

        self.rehearse(work)
        self.record(work).launch()
        self.xp.cuda.get_current_stream().synchronize()

    def rehearse(self, work: Callable[[], None]) -> None:
        self.xp.cuda.get_current_stream().synchronize()
        self.rehearsing = True
        try:
            with self.stream:
                work()
                self.stream.synchronize()
        finally:
            self.rehearsing = False

    def record(self, work: Callable[[], None]) -> Any:
        with self.stream, uncollected():
            self.stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    self.stream.end_capture()
                raise
            graph = self.stream.end_capture()
            graph.upload()
            self.stream.synchronize()
        return graph
