"""Finding a backend, and saying why one can't be used."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import mlpkit_backends
from mlpkit_backends import Backend, BackendUnavailable, available, load


def test_arrays_go_in_and_out_whole(backend: Backend) -> None:
    for a in (np.arange(6.0).reshape(2, 3), np.array([1, 2], np.uint8), np.array([True, False])):
        back = backend.to_numpy(backend.asarray(a))
        assert back.dtype == a.dtype
        np.testing.assert_array_equal(back, a)
    assert backend.to_numpy(backend.asarray([1, 2], "float32")).dtype == np.float32


def test_a_copy_shares_nothing(backend: Backend) -> None:
    a = backend.asarray(np.zeros(3))
    b = backend.copy(a)
    b += 1.0
    assert backend.to_numpy(a).tolist() == [0, 0, 0]


def test_the_double_refuses_what_cupy_refuses(backend: Backend) -> None:
    if backend.name in ("numpy", "numba"):
        pytest.skip("NumPy's arrays are on the host already")
    with pytest.raises((TypeError, RuntimeError)):
        np.asarray(backend.asarray([1.0]))


def test_the_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPKIT_BACKEND", "numpy")
    assert load().name == "numpy"
    monkeypatch.setenv("MLPKIT_BACKEND", "abacus")
    with pytest.raises(ValueError, match=r"MLPKIT_BACKEND must be one of auto, .*; got 'abacus'"):
        load()


def test_auto_is_the_first_that_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLPKIT_BACKEND", raising=False)
    first = next(name for name, state in available().items() if state == "ok")
    assert load().name == load("auto").name == first
    assert list(available()) == ["cupy", "numba", "numpy"]
    assert available()["numpy"] == "ok"


def test_auto_makes_no_backend_after_the_first_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def maker(name: str) -> Callable[[], Backend]:
        return lambda: made.append(name) or Backend(name, np)

    names = list(mlpkit_backends._MAKERS)
    monkeypatch.setattr(mlpkit_backends, "_MAKERS", {name: maker(name) for name in names})
    mlpkit_backends._find.cache_clear()
    try:
        assert load("auto").name == names[0]
        assert made == names[:1]
    finally:
        mlpkit_backends._find.cache_clear()


def test_numpy_by_name_never_imports_cupy() -> None:
    code = (
        "import sys; from mlpkit_backends import load; load('numpy'); "
        "sys.exit('cupy' in sys.modules or 'mlpkit_backends.cuda' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def fresh() -> Iterator[None]:
    """Backends looked for anew in the test, and forgotten after it."""
    mlpkit_backends._find.cache_clear()
    yield
    mlpkit_backends._find.cache_clear()


class FakeRuntime:
    """cupy.cuda.runtime as it answers on a machine with the given driver and devices."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, driver: int, runtime: int, devices: int | str) -> None:
        self.driver, self.runtime, self.devices = driver, runtime, devices

    def driverGetVersion(self) -> int:  # noqa: N802 - CUDA's names
        return self.driver

    def runtimeGetVersion(self) -> int:  # noqa: N802
        return self.runtime

    def getDeviceCount(self) -> int:  # noqa: N802
        if isinstance(self.devices, str):
            raise self.CUDARuntimeError(self.devices)
        return self.devices


MACHINES = {
    "no driver": (FakeRuntime(0, 13000, "cudaErrorInsufficientDriver"), "no NVIDIA driver"),
    "driver too old": (
        FakeRuntime(12020, 13000, "cudaErrorInsufficientDriver: too old"),
        r"offers CUDA 12\.2 and CuPy was built for CUDA 13\.0.*cupy-cuda12x",
    ),
    "no device": (
        FakeRuntime(13000, 13000, "cudaErrorNoDevice: none"),
        "no CUDA device is visible",
    ),
    "hidden": (FakeRuntime(13000, 13000, 0), "CUDA_VISIBLE_DEVICES"),
}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("machine", MACHINES)
def test_cupy_by_name_is_cupy_or_an_error(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, reason = MACHINES[machine]
    fake = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable, match=f"backend cupy can't be used: .*{reason}"):
        load("cupy")
    assert load("auto").name != "cupy"


def test_a_backend_whose_library_is_lacking_is_no_traceback() -> None:
    """SciPy multiplies for NumPy's backends; a GPU's needs none of it, and is still looked for."""
    code = (
        "import sys; sys.modules['scipy'] = sys.modules['cupy'] = None\n"
        "from mlpkit_backends import BackendUnavailable, available, load\n"
        "assert available()['numpy'] == 'scipy is not installed: pip install scipy', available()\n"
        "for name in ('auto', 'numpy'):\n"
        "    try: load(name)\n"
        "    except BackendUnavailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "backend numpy can't be used: scipy is not installed: pip install scipy\n"
    assert (done.stdout, done.stderr) == (2 * said, "")


class Raising:
    """An import of CuPy that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "cupy":
            raise self.error


@pytest.mark.usefixtures("fresh")
def test_cupy_without_a_folder_for_its_kernels_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CuPy makes ~/.cupy as it is imported: a home that can't be written to is the error."""
    error = PermissionError(13, "Permission denied", "/nobody/.cupy")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Raising(error), *sys.meta_path])
    with pytest.raises(BackendUnavailable, match=r"'/nobody/.cupy'\): .* with CUPY_CACHE_DIR"):
        load("cupy")
    assert load("auto").name != "cupy"


@pytest.mark.usefixtures("fresh")
def test_cupy_not_installed_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named 'cupy'", name="cupy")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Raising(error), *sys.meta_path])
    with pytest.raises(
        BackendUnavailable, match=r'not installed: pip install "cupy-cuda13x\[ctk\]"'
    ):
        load("cupy")
