"""CUDA sources built for a CPU, and a device that runs captured steps with them.

The double holds a step to what a stream allows while it is recorded: nothing is allocated, copied
or computed but by kernels and products, whose arguments have the kernels' types, and which write
only what the step owns.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpkit_backends import aligned
from mlpkit_backends.captured import CapturedStep
from mlpkit_backends.cpu import NumpyBackend
from mlpkit_backends.cuda import ELEMENTWISE
from mlpkit_backends.cuda_device import KERNELS, source

COMPILER = shutil.which("g++") or shutil.which("clang++")
FLAGS = (
    *("-std=c++20", "-O2", "-ffp-contract=off", "-Wall", "-Werror", "-Wno-unknown-pragmas"),
    *("-shared", "-fPIC", "-U_FORTIFY_SOURCE"),  # which forbids jumps to another stack
)
REALS = {"float32": "float", "float64": "double"}
LARGE = 1 << 20  # bytes of an array that isn't looked through for what a kernel has written
KERNEL = re.compile(
    r'extern "C" __global__ (?:__launch_bounds__\(.*?\) )?void (\w+)\((.*?)\) \{(.*?)\n\}', re.S
)
# Device functions in which threads meet.
MEET = (
    *("__syncthreads", "softmax_parts", "sum_of_lanes"),
    *("product_of_chunk", "update_part", "update_all"),
)


@cache
def build(code: str) -> ctypes.CDLL:
    """The C++ code as a library; the test is skipped where no compiler is."""
    if COMPILER is None:
        pytest.skip("no C++ compiler: neither g++ nor clang++ is on the PATH")
    folder = Path(tempfile.gettempdir()) / "mlpkit-cuda-double"
    folder.mkdir(exist_ok=True)
    library = folder / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / "code.cpp").write_text(code)
            made = Path(scratch) / "code.so"
            command = [COMPILER, *FLAGS, "-o", str(made), str(Path(scratch) / "code.cpp")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            made.rename(library)
    return ctypes.CDLL(str(library))


@cache
def kernels(fused: bool = True) -> dict[str, tuple[list[str], bool]]:
    """The kernels: their parameters' types, and whether their threads meet, in a block or in a
    warp. fused: those of fused.cu and wide.cu too."""
    found = {}
    for name, parameters, body in KERNEL.findall(source(fused)):
        types = [" ".join(p.split()[:-1]) for p in parameters.replace("*", "* ").split(",")]
        found[name] = (types, any(word in body for word in MEET))
    return found


@cache
def waits(name: str) -> bool:
    """Whether the kernel waits for those before it by itself."""
    bodies = {found: body for found, _, body in KERNEL.findall(source(fused=True))}
    return any(word in bodies[name] for word in ("wait_for_kernels", "update_all"))


def source_of_formulas() -> str:
    """formulas.h."""
    return (KERNELS / "formulas.h").read_text()


@cache
def emulation(dtype: str) -> ctypes.CDLL:
    """The kernels for a CPU, the fused ones in float32."""
    fused = dtype == "float32"
    wrappers = "\n".join(
        f"EMULATED({name}, {str(meets).lower()})" for name, (_, meets) in kernels(fused).items()
    )
    return build(
        "\n".join(
            (
                (Path(__file__).parent / "cuda_emulation.h").read_text(),
                f"#define REAL {REALS[dtype]}",
                source(fused),
                wrappers,
            )
        )
    )


def elementwise_code(name: str, op: str, real: str, head: str) -> str:
    """One of cuda.py's elementwise kernels as a loop over flat arrays, numbers for its settings."""
    inputs, outputs, operation = ELEMENTWISE[name]
    arrays = {"T": real, "uint8": "unsigned char", "bool": "bool"}
    numbers = {"T": real, "float64": "double", "uint64": "unsigned long long"}
    parameters, first = [], []
    for words in inputs.split(","):
        kind, parameter = words.split()
        if parameter in ("x", "dx", "dy", "dw", "pixel", "mean", "mask"):
            parameters.append(f"const {arrays[kind]} *{parameter}_")
            first.append(f"const {arrays[kind]} &{parameter} = {parameter}_[i];")
        else:
            parameters.append(f"{numbers[kind]} {parameter}")
    for words in outputs.split(","):
        kind, parameter = words.split()
        parameters.append(f"{arrays[kind]} *{parameter}_")
        first.append(f"{arrays[kind]} &{parameter} = {parameter}_[i];")
    return (
        f"{head} void {name}{op}({', '.join(parameters)}, long long n) {{\n"
        f"for (long long i = 0; i < n; i++) {{ {' '.join(first)} {operation.format(op=op)}; }}\n}}"
    )


class DeviceArray(np.ndarray):
    """An array that computes nothing while its device records."""

    recording = False

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        assert not DeviceArray.recording, f"numpy.{ufunc.__name__} while recording"
        plain = [np.asarray(a) if isinstance(a, DeviceArray) else a for a in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        assert not DeviceArray.recording, f"numpy.{function.__name__} while recording"
        return super().__array_function__(function, types, args, kwargs)


class Recorded:
    """A graph: what was recorded, done when it is launched. written: arrays, those that it writes
    among them. A kernel that is launched early finds what the one before it writes as it was before
    that, until it waits."""

    def __init__(self, written: list[np.ndarray]) -> None:
        # The calls by name, and the library of a kernel that is launched early.
        self.calls: list[tuple[str, Callable[[], Any], ctypes.CDLL | None]] = []
        self.written = written

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def launch(self) -> None:
        arrays = {(a.ctypes.data, a.nbytes): a for a in self.written}.values()
        watched = [a for a in arrays if a.nbytes < LARGE]
        before: list[bytes] = []  # nothing comes before the first call
        for _, call, library in self.calls:
            now = [a.tobytes() for a in watched]
            if library is not None:
                show_changes(library, watched, before, now)
            call()
            before = now


def show_changes(
    library: ctypes.CDLL, arrays: list[np.ndarray], before: list[bytes], now: list[bytes]
) -> None:
    """Let the library's next kernel find the arrays as they were before, until it waits."""
    changed = [
        (a.ctypes.data, len(old), old)
        for a, old, new in zip(arrays, before, now, strict=False)
        if old != new
    ]
    places, sizes, olds = zip(*changed, strict=True) if changed else ((), (), ())
    n = len(changed)
    library.set_changes(
        n,
        (ctypes.c_void_p * n)(*places),
        (ctypes.c_size_t * n)(*sizes),
        (ctypes.c_char_p * n)(*olds),
    )


class DeviceDouble:
    """`captured.Device` on a CPU."""

    processors = 3
    shared = 99 << 10  # what a block may have from compute capability 8.0 on

    def __init__(self, dtype: str) -> None:
        self.dtype, self.real = dtype, np.dtype(dtype).type
        self.graph: Recorded | None = None
        self.written: list[np.ndarray] = []
        self.rehearsing = False
        self.rehearsed: set[str] = set()

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        assert self.graph is None, "an allocation while recording"
        new = aligned.empty(shape, dtype)
        new[...] = 7  # whatever lay there
        return new.view(DeviceArray)

    def dense(self, a: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        assert self.graph is None, "a copy while recording"
        return np.ascontiguousarray(np.broadcast_to(a, shape), dtype)

    def address(self, a: np.ndarray) -> int:
        assert a.flags.c_contiguous
        assert a.dtype == self.dtype
        self.written.append(a)
        return a.ctypes.data

    def fill(self, target: np.ndarray, source: np.ndarray) -> None:
        assert self.graph is None, "a copy while recording"
        assert target.shape == source.shape
        assert target.dtype == source.dtype
        target[...] = source

    def launch(
        self, name: str, work: Any, *arguments: Any, shared: int = 0, early: bool = False
    ) -> None:
        types, meets = kernels()[name]
        assert len(arguments) == len(types), name
        slots = [self.slot(name, kind, a) for kind, a in zip(types, arguments, strict=True)]
        # Any grid gives the same; kernels that meet ask for their block.
        grid, width, height = (3, 5, 1) if isinstance(work, int) else work
        assert meets == (not isinstance(work, int)), name
        assert shared <= self.shared, name
        assert early == waits(name), name
        pointers = (ctypes.c_void_p * len(slots))(*map(ctypes.addressof, slots))
        kernel = getattr(emulation(self.dtype), f"run_{name}")
        keep = (slots, arguments)
        library = emulation(self.dtype) if early else None
        self.do(name, lambda: kernel(grid, width, height, pointers) and keep, library)

    def slot(self, name: str, kind: str, argument: Any) -> Any:
        """An argument as CuPy hands it over, which takes Python's int for long long and its float
        for double, and NumPy's numbers as what they are."""
        if kind.endswith("*"):
            of = kind.removeprefix("const ").removesuffix("*").strip()
            sizes = {"real": self.dtype, "double": "float64", "long long": "int64"}
            wanted = sizes | {"word": "uint64", "unsigned char": "uint8"}
            assert isinstance(argument, np.ndarray), (name, kind)
            assert argument.dtype == wanted[of], (name, kind, argument.dtype)
            assert argument.flags.c_contiguous, (name, kind)
            if not kind.startswith("const"):
                self.written.append(argument)
            return ctypes.c_void_p(argument.ctypes.data)
        numbers = {
            "int": (np.int32, ctypes.c_int),
            "long long": (int, ctypes.c_longlong),
            "double": (float, ctypes.c_double),
            "real": (self.real, np.ctypeslib.as_ctypes_type(self.dtype)),
        }
        python, c = numbers[kind]
        assert type(argument) is python, (name, kind, type(argument))
        return c(argument)

    def gemm(self, alpha: Any, a: Any, a_t: bool, b: Any, b_t: bool, beta: Any, c: Any) -> None:
        assert alpha.shape == beta.shape == (1,)
        assert alpha.dtype == beta.dtype == a.dtype == b.dtype == c.dtype == self.dtype
        assert all(m.flags.c_contiguous for m in (a, b, c))
        self.written.append(c)
        a, b, c = map(np.asarray, (a, b, c))

        def multiply() -> None:
            product = (a.T if a_t else a) @ (b.T if b_t else b)
            c[...] = alpha[0] * product + (beta[0] * c if beta[0] else 0)

        self.do("gemm", multiply)

    def do(self, name: str, call: Callable[[], Any], early: ctypes.CDLL | None = None) -> None:
        """Record the call; nothing is run outside of a graph. early: the library of a kernel that
        is launched early."""
        if self.rehearsing:
            self.rehearsed.add(name)
            return
        assert self.graph is not None, f"{name} outside of a graph"
        assert name in self.rehearsed, f"{name} would be loaded while recording"
        self.graph.calls.append((name, call, early))

    def rehearse(self, work: Callable[[], None]) -> None:
        self.rehearsing = True
        work()
        self.rehearsing = False

    def record(self, work: Callable[[], None]) -> Recorded:
        graph = self.graph = Recorded(self.written)
        DeviceArray.recording = True
        try:
            work()
            return graph
        finally:
            self.graph, DeviceArray.recording = None, False


class CapturedBackend(NumpyBackend):
    """NumPy's ops, and steps captured on the double."""

    def __init__(self, kind: type[CapturedStep] = CapturedStep) -> None:
        super().__init__()
        self.name, self.kind = "captured", kind
        self.steps: list[CapturedStep] = []

    def build(self, plan: Any, program: Any) -> CapturedStep:
        step = self.kind(plan, program, DeviceDouble(plan.dtype))
        self.steps.append(step)
        return step


def assert_only_its_own_is_written(step: CapturedStep, table: Any) -> None:
    """Kernels have written what the step owns alone, and what the host writes between runs, as the
    step's table of addresses, they only read."""
    device = step.device
    assert isinstance(device, DeviceDouble)
    owned = step.owned()
    for array in device.written:
        assert any(np.shares_memory(array, own) for own in owned if own.size)
    for array in (step.order, step.changing, table, step.images, step.labels, step.mean):
        assert not any(np.shares_memory(array, written) for written in device.written)
