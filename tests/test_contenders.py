"""Nobody wins the benchmark by doing less: every contender has the same losses."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bench.contenders import CONTENDERS, LACKING
from bench.with_jax import jax_with
from bench.with_torch import torch_graph
from mlpkit.benchmark import LEARNING_RATES, WORKLOADS, Case

# The GPU's, as far as a CPU carries them: all but the recording itself.
ON_A_CPU = {
    "PyTorch steps as in a graph of one": torch_graph(1, "cpu"),
    "PyTorch steps as in a graph of three": torch_graph(3, "cpu"),
}
ALL = CONTENDERS | ON_A_CPU
NEEDS = {"PyTorch": "torch", "JAX": "jax", "scikit-learn": "sklearn", "numba": "numba"}
RNG = np.random.default_rng(0)
DATA = (
    RNG.integers(0, 256, (256, 32, 32, 3), dtype=np.uint8),
    RNG.integers(0, 10, 256),
    np.full((32, 32, 3), 0.5),
)
STEPS = 6


def losses(name: str, workload: str, optimizer: str) -> np.ndarray:
    """A contender's first losses."""
    case = Case("numba", workload, optimizer, WORKLOADS[workload], "float32")
    order = np.random.default_rng(1).integers(0, 256, (STEPS, case.batch_size))
    return ALL[name](case, DATA)(order)


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str], np.ndarray]:
    """The losses of plain NumPy in float64, by workload and optimizer."""
    return {}


@pytest.mark.parametrize("optimizer", LEARNING_RATES)
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("name", [name for name in ALL if name != "plain NumPy"])
@pytest.mark.filterwarnings("default")  # other libraries' own
def test_the_same_losses(
    name: str, workload: str, optimizer: str, expected: dict[tuple[str, str], np.ndarray]
) -> None:
    for library, module in NEEDS.items():
        if library in name and importlib.util.find_spec(module) is None:
            pytest.skip(f'{library} is not installed: pip install -e ".[bench]"')
    if (name, optimizer) in LACKING:
        pytest.skip(f"{name} has no {optimizer}")
    case = (workload, optimizer)
    if case not in expected:
        expected[case] = losses("plain NumPy", *case)
    np.testing.assert_allclose(losses(name, *case), expected[case], rtol=1e-4)


def test_jax_on_a_cpu_is_no_contender_of_a_gpus() -> None:
    jax = pytest.importorskip("jax")
    other = "cpu" if jax.default_backend() == "gpu" else "gpu"
    with pytest.raises(RuntimeError, match=f"not on a {other}"):
        jax_with(scan=True, device=other)(Case("numpy", "fcn", "sgd", 1, "float32"), DATA)
