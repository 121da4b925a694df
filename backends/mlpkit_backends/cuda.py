"""CuPy on a CUDA GPU. Importing this module imports CuPy and asks for a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from inspect import signature
from typing import Any

import numpy as np

from .base import Array, Backend, EagerStep, Step
from .cublas import tf32
from .cuda_errors import explain, from_cuda, gib, one_line, out_of_memory
from .cuda_find import capability, cuda_version, import_cupy, wheels
from .errors import DeviceError
from .plan import Plan


def cause(error: Exception) -> str:
    """What kept a step from running in some way, in words; raises what no other way would mend."""
    if not from_cuda(error) or out_of_memory(error):
        raise error
    return one_line(error)


def one_pass(*places: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An op as a kernel where the arguments at these places are all float32 or all float64: what
    kernels are for. Any other arrays go through the base's passes, which have NumPy's results."""

    def decorate(op: Callable[..., Any]) -> Callable[..., Any]:
        in_passes = getattr(Backend, op.__name__)
        takes = signature(op)

        @wraps(op)
        def chosen(self: CupyBackend, *arguments: Any, **named: Any) -> Any:
            # Binding takes longer than a launch: only where an argument is named or left out.
            if named or len(arguments) + 1 < len(takes.parameters):
                arguments = takes.bind(self, *arguments, **named).args[1:]
            dtypes = {str(getattr(arguments[i], "dtype", None)) for i in places}
            fits = dtypes in ({"float32"}, {"float64"})
            return (op if fits else in_passes)(self, *arguments)

        return chosen

    return decorate


class CupyBackend(Backend):
    """The base ops on CuPy, on the current device: one kernel where the base makes several passes.
    Whole steps as CUDA graphs."""

    def __init__(self) -> None:
        super().__init__("cupy", import_cupy())

    def asarray(self, a: Any, dtype: str | None = None) -> Array:
        return self.xp.asarray(a, dtype=dtype)

    def copy(self, a: Array) -> Array:
        return a.copy()  # in C's order: asarray's copy of what was broadcast is in another

    def to_numpy(self, a: Array) -> np.ndarray[Any, Any]:
        return np.asarray(self.xp.asnumpy(a))

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()

    def device_name(self) -> str:
        device = self.xp.cuda.Device()
        return str(self.xp.cuda.runtime.getDeviceProperties(device.id)["name"].decode())

    def details(self) -> dict[str, str]:
        cuda = self.xp.cuda
        device = cuda.Device()
        free, total = cuda.runtime.memGetInfo()
        return {
            "device": f"{self.device_name()}, compute capability {capability(device)}",
            "memory": f"{gib(free)} of {gib(total)} free",
            "driver": f"for CUDA {cuda_version(cuda.runtime.driverGetVersion())}",
            "CUDA runtime": cuda_version(cuda.runtime.runtimeGetVersion()),
            "CuPy": f"{self.xp.__version__} ({', '.join(wheels()) or 'not from a wheel'})",
            "TF32": "on (CUPY_TF32=1)" if tf32() else "off",
            "training steps": self._how(),
        }

    def _how(self) -> str:
        """How training steps run here."""
        from .captured import CapturedStep
        from .cuda_device import CudaDevice
        from .fused import FusedStep

        why_not = self._unfused()
        if not why_not:
            try:
                CudaDevice("float32", fused=True).try_out()
                return FusedStep.how
            except Exception as error:
                why_not = cause(error)
        try:
            CudaDevice("float32").try_out()
        except Exception as error:
            return f"op by op ({cause(error)})"
        return f"{CapturedStep.how} ({why_not})"

    @contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not from_cuda(error):
                raise
            raise DeviceError(explain(error, self.xp.cuda.runtime.memGetInfo)) from error

    # Ops in one pass: `elementwise` holds the kernels, which call formulas.h.

    @one_pass(1)
    def normalise(self, images: Array, mean: Array) -> Array:
        return elementwise("normalise")(images, mean)

    @one_pass(0)
    def leaky_relu(self, x: Array, alpha: float) -> Array:
        return self._activate("LEAKY_RELU", x, alpha)

    @one_pass(0, 1)
    def leaky_relu_backward(self, dy: Array, x: Array, alpha: float) -> Array:
        return self._activate_backward("LEAKY_RELU", dy, x, alpha)

    @one_pass(0, 1)
    def relu_backward(self, dy: Array, x: Array) -> Array:
        return self._activate_backward("RELU", dy, x)

    @one_pass(0)
    def elu(self, x: Array, alpha: float) -> Array:
        return self._activate("ELU", x, alpha)

    @one_pass(0, 1)
    def elu_backward(self, dy: Array, x: Array, alpha: float) -> Array:
        return self._activate_backward("ELU", dy, x, alpha)

    @one_pass(0)
    def selu(self, x: Array, alpha: float, scale: float) -> Array:
        return self._activate("SELU", x, alpha, scale)

    @one_pass(0, 1)
    def selu_backward(self, dy: Array, x: Array, alpha: float, scale: float) -> Array:
        return self._activate_backward("SELU", dy, x, alpha, scale)

    @one_pass(0)
    def sigmoid(self, x: Array) -> Array:
        return self._activate("SIGMOID", x)

    @one_pass(0, 1)
    def sigmoid_backward(self, dy: Array, x: Array) -> Array:
        return self._activate_backward("SIGMOID", dy, x)

    @one_pass(0, 1)
    def tanh_backward(self, dy: Array, x: Array) -> Array:
        return self._activate_backward("TANH", dy, x)

    def _activate(self, op: str, x: Array, alpha: float = 0.0, scale: float = 1.0) -> Array:
        return elementwise("activate", op)(x, alpha, scale)

    def _activate_backward(
        self, op: str, dy: Array, x: Array, alpha: float = 0.0, scale: float = 1.0
    ) -> Array:
        return elementwise("activate_backward", op)(dy, x, alpha, scale)

    def keep_mask(
        self, shape: tuple[int, ...], keep_prob: float, key: tuple[int, int, int]
    ) -> Array:
        mask = self.xp.empty(shape, dtype=bool)
        return elementwise("keeps")(keep_prob, *map(np.uint64, key), mask)

    @one_pass(0)
    def dropout(self, x: Array, mask: Array, keep_prob: float) -> Array:
        return elementwise("drop")(mask, x, keep_prob)

    @one_pass(0)
    def softmax_cross_entropy(self, scores: Array, labels: Array) -> Array:
        return self._rows("row_losses", scores, labels, scores.shape[:1])

    @one_pass(0)
    def softmax_cross_entropy_backward(self, scores: Array, labels: Array) -> Array:
        return self._rows("row_gradients", scores, labels, scores.shape)

    def _rows(self, name: str, scores: Array, labels: Array, shape: tuple[int, ...]) -> Array:
        from .cuda_device import THREADS, kernel

        scores = self.xp.ascontiguousarray(scores)
        labels = self.xp.ascontiguousarray(labels, "int64")
        result = self.xp.empty(shape, scores.dtype)
        n, classes = map(np.int32, scores.shape)
        if n:
            blocks = -(-32 * int(n) // THREADS)  # a warp a row
            arguments = (scores, labels, result, n, classes)
            kernel(str(scores.dtype), name)((blocks,), (THREADS,), arguments)
        return result

    @one_pass(0, 1)
    def sgd_update(self, w: Array, dw: Array, lr: float) -> None:
        elementwise("sgd_update")(dw, lr, w)

    @one_pass(0, 1, 2)
    def sgdm_update(self, w: Array, dw: Array, velocity: Array, lr: float, momentum: float) -> None:
        elementwise("sgdm_update")(dw, lr, momentum, w, velocity)

    @one_pass(0, 1, 2)
    def rmsprop_update(
        self, w: Array, dw: Array, cache: Array, lr: float, decay: float, eps: float
    ) -> None:
        elementwise("rmsprop_update")(dw, lr, decay, 1.0 - decay, eps, w, cache)

    @one_pass(0, 1, 2, 3)
    def adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
    ) -> None:
        step, correct = lr / (1.0 - beta1**t), 1.0 / (1.0 - beta2**t)
        settings = (step, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, correct)
        elementwise("adam_update")(dw, *settings, w, m, v)

    def compile(self, plan: Plan) -> Step:
        from .captured import CapturedStep, too_large
        from .cuda_device import CudaDevice
        from .fused import FusedStep, unfit

        program, why_not = plan.program, plan.misfit()
        if program is None or why_not:
            return EagerStep(self, plan, why_not)
        if why_not := too_large(plan, program):
            return EagerStep(self, plan, why_not)
        if str(plan.images.dtype) != ("uint8" if plan.mean is not None else plan.dtype):
            return EagerStep(self, plan, f"the images are {plan.images.dtype}, not {plan.dtype}")
        # What CuPy keeps for arrays to come is no memory to cuBLAS and graphs, who ask the driver.
        self.xp.get_default_memory_pool().free_all_blocks()
        shared = self.xp.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
        why_not = self._unfused() or unfit(plan, program, lambda a: int(a.data.ptr), shared)
        if not why_not:
            try:
                return FusedStep(plan, program, CudaDevice(plan.dtype, fused=True))
            except Exception as error:
                why_not = cause(error)
        try:
            step = CapturedStep(plan, program, CudaDevice(plan.dtype))
        except Exception as error:
            return EagerStep(self, plan, f"no graph could be made: {cause(error)}")
        step.how = f"{step.how} ({why_not})"
        return step

    def _unfused(self) -> str:
        """Why no step has the fused kernels here, in words; "" where float32's have."""
        if tf32():
            return "CUPY_TF32=1 asks for products in TF32, which cuBLAS has"
        if int(self.xp.cuda.Device().compute_capability) < 80:
            return "the fused kernels are for compute capability 8.0 and newer"
        return ""


# Kernels by name: what goes in, what comes out or is changed in place, and the operation.
ELEMENTWISE = {
    "normalise": ("uint8 pixel, T mean", "T x", "x = normalise(pixel, mean)"),
    "activate": ("T x, T alpha, T scale", "T y", "y = activate({op}, x, alpha, scale)"),
    "activate_backward": (
        "T dy, T x, T alpha, T scale",
        "T dx",
        "dx = activate_backward({op}, dy, x, alpha, scale)",
    ),
    "keeps": (
        "float64 keep_prob, uint64 seed, uint64 layer, uint64 step",
        "bool mask",
        "mask = keeps(i, keep_prob, seed, layer, step)",
    ),
    "drop": ("bool mask, T x, T keep_prob", "T y", "y = drop(mask, x, keep_prob)"),
    "sgd_update": ("T dw, T lr", "T w", "sgd_update(w, dw, lr)"),
    "sgdm_update": (
        "T dw, T lr, T momentum",
        "T w, T velocity",
        "sgdm_update(w, dw, velocity, lr, momentum)",
    ),
    "rmsprop_update": (
        "T dw, T lr, T decay, T rest, T eps",
        "T w, T cache",
        "rmsprop_update(w, dw, cache, lr, decay, rest, eps)",
    ),
    "adam_update": (
        "T dw, T step, T beta1, T rest1, T beta2, T rest2, T eps, T correct",
        "T w, T m, T v",
        "adam_update(w, dw, m, v, step, beta1, rest1, beta2, rest2, eps, correct)",
    ),
}


@cache
def elementwise(name: str, op: str = "") -> Any:
    """The kernel of that name, for one of formulas.h's activations where it takes one."""
    import cupy

    from .cuda_device import KERNELS, OPTIONS

    inputs, outputs, operation = ELEMENTWISE[name]
    return cupy.ElementwiseKernel(
        inputs,
        outputs,
        operation.format(op=op),
        f"mlpkit_{name}_{op}".lower(),
        preamble=(KERNELS / "formulas.h").read_text(),
        options=OPTIONS,
    )
