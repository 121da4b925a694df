"""Fixtures: `backend`, every backend that shared code is tested over; `torture`, how long the tests
in torture/ go on; `mlpkit`, the command line, and `digits`, its data. NumPy's global generator
begins anew for each test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlpkit_backends
from mlpkit_backends import Array, Backend, BackendUnavailable, available, load
from tests.commands import TEST, TRAIN, Mlpkit


class StrictBackend(Backend):
    """The base ops on array-api-strict's second device, whose arrays refuse, as CuPy's do, to
    become NumPy's unasked. A stray numpy call in shared code fails on it."""

    def __init__(self) -> None:
        try:
            import array_api_strict
        except ImportError as error:
            raise BackendUnavailable("pip install array-api-strict") from error
        super().__init__("strict", array_api_strict)
        self.device, self.host = map(array_api_strict.Device, ("device1", "CPU_DEVICE"))

    def asarray(self, a: Any, dtype: str | None = None) -> Array:
        if not isinstance(a, type(self.xp.empty(0))):
            a = self.xp.asarray(np.asarray(a), device=self.device)
        return a if dtype is None else self.xp.astype(a, getattr(self.xp, dtype), copy=False)

    def to_numpy(self, a: Array) -> np.ndarray[Any, Any]:
        return np.asarray(a.to_device(self.host))

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.device)

    def arange(self, n: int) -> Array:
        return self.xp.arange(n, dtype=self.xp.int64, device=self.device)


def pytest_configure() -> None:
    """Commands under test hear signals, also where nohup or & had this process ignore them."""
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, default)


def pytest_report_header() -> list[str]:
    """Each backend and why its tests are skipped, once."""
    return [f"backend {name}: {state}" for name, state in available().items()]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test begins with the same state of NumPy's global generator, as initial weights come
    from there: whatever ran before, the same numbers."""
    np.random.seed(0)


@pytest.fixture(params=["numpy", "numba", "strict", "cupy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Each backend in turn, made the default; skipped with its reason where it can't run."""
    monkeypatch.setitem(mlpkit_backends._MAKERS, "strict", StrictBackend)
    mlpkit_backends._find.cache_clear()
    try:
        chosen = load(request.param)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("MLPKIT_BACKEND", request.param)
    yield chosen
    mlpkit_backends._find.cache_clear()


FIGURE = "torture"


class Torture:
    """How long a test goes on: the ordinary suite runs its short form, `make torture` the full
    one, and both print what it found."""

    def __init__(self, test: pytest.Item) -> None:
        self.full = bool(test.config.getoption("--torture"))
        self.figures = test.user_properties

    def times(self, short: int, full: int) -> int:
        """How often to do it."""
        return full if self.full else short

    def figure(self, line: str) -> None:
        """A line for the end of the test run: reports bring it there from other processes, too."""
        self.figures.append((FIGURE, line))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="tests/torture at its full length")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What the torture tests found."""
    reports = terminalreporter.getreports("passed")
    properties = [pair for report in reports for pair in report.user_properties]
    if figures := [line for name, line in properties if name == FIGURE]:
        terminalreporter.section("torture" if config.getoption("--torture") else "torture, short")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture
def torture(request: pytest.FixtureRequest) -> Torture:
    """The length of a test in torture/, and where its figures go."""
    return Torture(request.node)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small set of rendered digits."""
    from mlpkit import synthetic  # here: other tests run where matplotlib is missing

    folder = tmp_path_factory.mktemp("digits")
    synthetic.make(folder, TRAIN, TEST, workers=1)
    return str(folder)


@pytest.fixture
def mlpkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Mlpkit:
    """Runs a command in tmp_path; returns its status, and what it said on either stream."""
    from mlpkit import cli  # here: other tests run where typer is missing

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPKIT_BACKEND", "numpy")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("MLPKIT_DATA", raising=False)
    monkeypatch.delenv("MLPKIT_TRACEBACK", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mlpkit", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        status = ended.value.code
        return (status if isinstance(status, int) else 0, *capsys.readouterr())

    return run
