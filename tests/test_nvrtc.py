"""Every CUDA source compiles with NVRTC, which needs no GPU, for Ampere and Hopper."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, files

import pytest

from mlpkit_backends.cuda import ELEMENTWISE
from mlpkit_backends.cuda_device import OPTIONS, source
from mlpkit_backends.plan import OPS
from tests.cuda_double import elementwise_code, source_of_formulas

REALS = ("float", "double")


@cache
def nvrtc() -> ctypes.CDLL:
    """NVRTC as the extra cuda-check installs it; the test is skipped where it isn't."""
    for package in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            found = files(package) or []
        except PackageNotFoundError:
            continue
        # The one that it asks for by name first.
        for start in ("libnvrtc-builtins.so.", "libnvrtc.so."):
            for path in found:
                if path.name.startswith(start) and "alt" not in path.name:
                    library = ctypes.CDLL(str(path.locate()))
        return library
    pytest.skip('NVRTC is not installed: pip install -e ".[cuda-check]"')


def compile_for(code: str, architecture: str, *options: str) -> str:
    """Compile to a cubin; what the compiler says, warnings included."""
    library, program = nvrtc(), ctypes.c_void_p()
    given = [f"--gpu-architecture={architecture}", "-ftz=true", *OPTIONS, *options]
    c_options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    made = library.nvrtcCreateProgram(
        ctypes.byref(program), code.encode(), b"code.cu", 0, None, None
    )
    assert made == 0
    status = library.nvrtcCompileProgram(program, len(given), c_options)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    said = log.value.decode().strip()
    return said if status == 0 else f"error {status}: {said}"


def code(real: str) -> str:
    """The kernels of steps in that type, the fused ones where it is float32."""
    return source(fused=real == "float")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("real", REALS)
def test_the_steps_kernels(real: str, architecture: str) -> None:
    assert compile_for(code(real), architecture, f"-DREAL={real}") == ""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("real", REALS)
def test_the_steps_kernels_keep_to_registers(real: str, architecture: str) -> None:
    """An array that is indexed by what the compiler doesn't know lies in a thread's stack, which is
    the device's slow memory; so does what fits in no register."""
    said = compile_for(code(real), architecture, f"-DREAL={real}", "--ptxas-options=-v")
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", said)
    assert frames == [("0", "0")] * code(real).count("__global__")
    # A block of a loss has up to 1024 threads, and its device 65536 registers for them.
    registers = re.findall(r"'loss_\w+'.*?Used (\d+) registers", said, re.S)
    assert len(registers) == code(real).count("__global__ void loss_")
    assert all(int(count) * 1024 <= 65536 for count in registers)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("real", REALS)
def test_the_elementwise_kernels(real: str, architecture: str) -> None:
    kernels = [
        elementwise_code(name, op, real, 'extern "C" __global__')
        for name, (_, _, operation) in ELEMENTWISE.items()
        for op in ([op.upper() for op in OPS[1:]] if "{op}" in operation else [""])
    ]
    assert compile_for("\n".join((source_of_formulas(), *kernels)), architecture) == ""


def test_what_is_wrong_is_said() -> None:
    assert "error" in compile_for("__global__ void f() { undefined(); }", "sm_90")
    warned = compile_for('extern "C" __global__ void f() { int unused; }', "sm_90")
    assert "never referenced" in warned
