"""The CUDA kernels' arithmetic, built for a CPU, against the base's ops on NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from inspect import signature
from itertools import cycle, repeat
from typing import Any, ClassVar

import numpy as np
import pytest

from mlpkit_backends import Backend
from mlpkit_backends.cuda import ELEMENTWISE, CupyBackend
from mlpkit_backends.plan import OPS
from tests.cuda_double import build, elementwise_code, source_of_formulas
from tests.cuda_fakes import gpu

BASE = Backend("numpy", np)
RNG = np.random.default_rng(8)
REALS = {"float32": "float", "float64": "double"}
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
N = 60
SETTINGS = {"leaky_relu": (0.1,), "elu": (0.5,), "selu": (1.6732, 1.0507)}


def library(dtype: str) -> ctypes.CDLL:
    """Every elementwise kernel for real = dtype, activations one by one."""
    loops = [
        elementwise_code(name, op, REALS[dtype], 'extern "C"')
        for name, (_, _, operation) in ELEMENTWISE.items()
        for op in ([op.upper() for op in OPS[1:]] if "{op}" in operation else [""])
    ]
    return build("\n".join((source_of_formulas(), *loops)))


def run(name: str, dtype: str, *arguments: Any) -> None:
    """The kernel over flat arrays; numbers are passed as what they are."""
    slots = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous
            slots.append(ctypes.c_void_p(argument.ctypes.data))
        elif isinstance(argument, np.generic):
            slots.append(np.ctypeslib.as_ctypes_type(argument.dtype)(argument))
        else:
            raise AssertionError(argument)
    getattr(library(dtype), name)(*slots, ctypes.c_longlong(arguments[-1].size))


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def close(got: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    assert got.dtype == expected.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("op", OPS[1:])
def test_activations(op: str, dtype: str) -> None:
    real = np.dtype(dtype).type
    x = np.concatenate([RNG.normal(0, 3, N), [0.0, -0.0, 80.0, -80.0]]).astype(dtype)
    dy, y, dx = RNG.normal(size=x.size).astype(dtype), np.empty_like(x), np.empty_like(x)
    settings = SETTINGS.get(op, ())
    alpha, scale = (*settings, *(0.0, 1.0)[len(settings) :])
    run(f"activate{op.upper()}", dtype, x, real(alpha), real(scale), y)
    close(y, getattr(BASE, op)(x, *settings), dtype)
    run(f"activate_backward{op.upper()}", dtype, dy, x, real(alpha), real(scale), dx)
    close(dx, getattr(BASE, f"{op}_backward")(dy, x, *settings), dtype)


def test_nan_stays_nan(dtype: str) -> None:
    real = np.dtype(dtype).type
    x = np.full(1, np.nan, dtype)
    for op in OPS[1:]:
        y = np.empty_like(x)
        run(f"activate{op.upper()}", dtype, x, real(0.5), real(1), y)
        assert np.isnan(y).all(), op


def test_normalise(dtype: str) -> None:
    pixels = np.arange(256, dtype=np.uint8)
    mean, x = RNG.random(256).astype(dtype), np.empty(256, dtype)
    run("normalise", dtype, pixels, mean, x)
    assert np.array_equal(x, BASE.normalise(pixels, mean))


@pytest.mark.parametrize("key", [(0, 0, 0), (1234, 7, 3), (2**64 - 1, 2, 2**40)])
@pytest.mark.parametrize("keep_prob", [0.0, 0.25, 0.6, 1.0])
def test_masks_are_numpys_philox_bit_for_bit(key: tuple[int, int, int], keep_prob: float) -> None:
    mask = np.empty(100_003, bool)
    run("keeps", "float64", np.float64(keep_prob), *map(np.uint64, key), mask)
    seed, layer, step = key
    bits = np.random.Philox(
        key=np.array([seed, layer], np.uint64), counter=np.array([0, step, 0, 0], np.uint64)
    )
    halves = bits.random_raw(50_002).astype("<u8").view("<u4")[: mask.size]
    assert np.array_equal(mask, halves < keep_prob * 2**32)


def test_dropout(dtype: str) -> None:
    x, mask = RNG.normal(size=N).astype(dtype), RNG.random(N) < 0.5
    y = np.empty_like(x)
    run("drop", dtype, mask, x, np.dtype(dtype).type(0.7), y)
    close(y, BASE.dropout(x, mask, 0.7), dtype)


# Each update: how many arrays of state, its settings, and those that its kernel takes.
UPDATES = {
    "sgd_update": (0, (0.1,), (0.1,)),
    "sgdm_update": (1, (0.1, 0.9), (0.1, 0.9)),
    "rmsprop_update": (1, (0.1, 0.99, 1e-8), (0.1, 0.99, 1 - 0.99, 1e-8)),
    "adam_update": (
        2,
        (0.1, 0.9, 0.999, 1e-8, 3),
        (0.1 / (1 - 0.9**3), 0.9, 1 - 0.9, 0.999, 1 - 0.999, 1e-8, 1 / (1 - 0.999**3)),
    ),
}


@pytest.mark.parametrize("op", UPDATES)
def test_updates(op: str, dtype: str) -> None:
    states, settings, taken = UPDATES[op]
    w, dw = (RNG.normal(size=N).astype(dtype) for _ in range(2))
    state = [RNG.random(N).astype(dtype) for _ in range(states)]
    expected = [w.copy(), *(s.copy() for s in state)]
    getattr(BASE, op)(expected[0], dw, *expected[1:], *settings)
    before = dw.copy()
    run(op, dtype, dw, *map(np.dtype(dtype).type, taken), w, *state)
    for got, wanted in zip((w, *state), expected, strict=True):
        close(got, wanted, dtype)
    assert np.array_equal(dw, before)


@pytest.mark.parametrize("classes", [1, 2, 10, 37])
def test_rows_of_the_loss(classes: int, dtype: str) -> None:
    from tests.cuda_double import emulation

    n = 23
    scores = RNG.normal(0, 5, (n, classes)).astype(dtype)
    scores[0] *= 2000  # too large for an exponential that isn't shifted
    labels = RNG.integers(0, classes, n)
    losses, d = np.empty(n, dtype), np.empty_like(scores)
    for name, result in (("row_losses", losses), ("row_gradients", d)):
        slots = [ctypes.c_void_p(a.ctypes.data) for a in (scores, labels, result)]
        slots += [ctypes.c_int(n), ctypes.c_int(classes)]
        pointers = (ctypes.c_void_p * 5)(*map(ctypes.addressof, slots))
        getattr(emulation(dtype), f"run_{name}")(6, 4 * 32, 1, pointers)
    close(losses, BASE.softmax_cross_entropy(scores, labels), dtype)
    close(d, BASE.softmax_cross_entropy_backward(scores, labels), dtype)


def test_a_score_that_is_no_number_shows_in_the_loss(dtype: str) -> None:
    from tests.cuda_double import emulation

    scores = np.array([[1.0, np.nan, 2.0]], dtype)
    labels, losses = np.array([2]), np.zeros(1, dtype)
    slots = [ctypes.c_void_p(a.ctypes.data) for a in (scores, labels, losses)]
    slots += [ctypes.c_int(1), ctypes.c_int(3)]
    pointers = (ctypes.c_void_p * 5)(*map(ctypes.addressof, slots))
    emulation(dtype).run_row_losses(1, 32, 1, pointers)
    assert np.isnan(losses).all()


class Kernel:
    """An elementwise kernel as CuPy would call it: numbers become what it takes, arrays broadcast,
    and what comes out is new where it isn't given."""

    called: ClassVar[set[str]] = set()

    def __init__(self, name: str, op: str = "") -> None:
        self.name, self.op = name, op
        inputs, outputs, _ = ELEMENTWISE[name]
        self.kinds = [words.split()[0] for words in f"{inputs}, {outputs}".split(", ")]
        self.inputs = len(inputs.split(", "))

    def __call__(self, *arguments: Any) -> Any:
        self.called.add(self.name)
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        (real,) = {
            str(a.dtype)
            for a, kind in zip(arguments, self.kinds, strict=False)
            if kind == "T" and isinstance(a, np.ndarray)
        } or {"float64"}
        made = [np.empty(shape, real)] * (len(arguments) == self.inputs)
        dtypes = [real if kind == "T" else kind for kind in self.kinds]
        slots = []
        for i, (a, dtype) in enumerate(zip((*arguments, *made), dtypes, strict=True)):
            if isinstance(a, np.ndarray):
                assert str(a.dtype) == dtype
                whole = np.array(np.broadcast_to(a, shape), order="C")
                slots.append(a if i >= self.inputs else whole)
            else:
                slots.append(np.dtype(dtype).type(a))
        run(f"{self.name}{self.op}", real, *slots)
        return slots[-1]


@pytest.fixture
def cupys(monkeypatch: pytest.MonkeyPatch) -> CupyBackend:
    """The backend's ops over NumPy's arrays, its kernels built for a CPU."""
    monkeypatch.setattr("mlpkit_backends.cuda.elementwise", Kernel)
    monkeypatch.setattr(Kernel, "called", set())
    backend = gpu()
    backend.xp = np
    return backend


W, DW, M, V = (RNG.random((7, 5)) for _ in range(4))
IN_ONE_PASS: dict[str, tuple[Any, ...]] = {
    **{op: (W - 0.5, *SETTINGS.get(op, ())) for op in OPS[1:] if op not in ("relu", "tanh")},
    **{f"{op}_backward": (DW, W - 0.5, *SETTINGS.get(op, ())) for op in OPS[1:]},
    "normalise": (RNG.integers(0, 256, (7, 5), np.uint8), M[0]),
    "keep_mask": ((7, 5), 0.6, (1234, 7, 3)),
    "dropout": (W, M < 0.5, 0.7),
    "sgd_update": (W, DW, 0.1),
    "sgdm_update": (W, DW, M, 0.1, 0.9),
    "rmsprop_update": (W, DW, V, 0.1, 0.99, 1e-8),
    "adam_update": (W, DW, M, V, 0.1, 0.9, 0.999, 1e-8, 3),
}


def both(cupys: Backend, op: str, given: tuple[Any, ...]) -> list[list[Any]]:
    """What the op returns and leaves in its arrays, on the backend and on the base."""
    found = []
    for backend in (cupys, BASE):
        arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in given]
        result = getattr(backend, op)(*arguments)
        found.append([a for a in (result, *arguments) if isinstance(a, np.ndarray)])
    return found


def cast(arguments: tuple[Any, ...], dtypes: Iterator[str]) -> tuple[Any, ...]:
    """Those that are float64 arrays in the next of the dtypes each."""
    return tuple(
        a.astype(next(dtypes)) if isinstance(a, np.ndarray) and a.dtype == "float64" else a
        for a in arguments
    )


@pytest.mark.parametrize("op", IN_ONE_PASS)
def test_an_op_gives_its_kernel_what_it_takes(cupys: CupyBackend, op: str, dtype: str) -> None:
    got, expected = both(cupys, op, cast(IN_ONE_PASS[op], repeat(dtype)))
    assert len(Kernel.called) == 1
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("op", IN_ONE_PASS)
def test_an_op_takes_what_the_bases_takes_by_name(cupys: CupyBackend, op: str) -> None:
    """As does any override, which keeps the base's signature."""
    first, *rest = IN_ONE_PASS[op]
    names = list(signature(getattr(Backend, op)).parameters)[2:]
    one, two = (a.copy() if isinstance(a, np.ndarray) else a for a in (first, first))
    named = dict(zip(names, rest, strict=True))
    copied = {name: np.copy(a) if isinstance(a, np.ndarray) else a for name, a in named.items()}
    got, expected = getattr(cupys, op)(one, **named), getattr(BASE, op)(two, **copied)
    np.testing.assert_allclose(
        one if got is None else got, two if got is None else expected, 1e-12, 1e-12
    )
    if rest:
        with pytest.raises(TypeError, match="missing"):
            getattr(cupys, op)(one)


def test_every_kernel_is_an_ops(cupys: CupyBackend) -> None:
    for op, arguments in IN_ONE_PASS.items():
        both(cupys, op, arguments)
    assert Kernel.called == ELEMENTWISE.keys()


OF_TWO = [op for op in IN_ONE_PASS if op.endswith(("backward", "update"))]


@pytest.mark.parametrize(
    ("op", "dtypes"),
    [
        *((op, ["float16"]) for op in IN_ONE_PASS if op != "keep_mask"),
        *((op, ["float32", "float64"]) for op in OF_TWO),
    ],
)
def test_other_dtypes_have_the_bases_results(
    cupys: CupyBackend, op: str, dtypes: list[str]
) -> None:
    got, expected = both(cupys, op, cast(IN_ONE_PASS[op], cycle(dtypes)))
    assert not Kernel.called
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-15)
        assert a.dtype == b.dtype
