"""Everything that a GPU has to show, part by part: `make cuda`, or a part by itself,

    python bench/cuda.py PART [--backend cupy] [--seconds 1] [--rounds 5]

parity: NumPy against the GPU; ceilings: what the card does by itself; rates: mlpkit's steps, as
graphs and op by op; peers: PyTorch and JAX, those that are installed. Each part is printed and
written into bench/results/cuda-DEVICE.json as it ends. Needs NumPy and CuPy alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlpkit import benchmark
from mlpkit.evaluation import Batches
from mlpkit.gradcheck import check_gradients, rel_error
from mlpkit.losses import CrossEntropy
from mlpkit.networks import MLP
from mlpkit.optimizers import SGD, SGDM, Adam, RMSProp
from mlpkit.planning import make_plan
from mlpkit.provenance import versions
from mlpkit.recipes import build_network
from mlpkit.run_files import write_json
from mlpkit.training import fit
from mlpkit_backends import Backend, BackendUnavailable, DeviceError, load
from mlpkit_backends.base import EagerStep

sys.path.insert(0, str(Path(__file__).parent))  # when it is run as a script

RESULTS = Path(__file__).parent / "results"
Figures = dict[str, Any]
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda net: SGD(net, 0.1),
    "sgdm": lambda net: SGDM(net, 0.05, 0.9),
    "rmsprop": lambda net: RMSProp(net, 1e-3),
    "adam": lambda net: Adam(net, 1e-3),
}


def largest(a: Any, b: Any) -> float:
    """The largest relative difference."""
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-300)))


def history(backend: Backend, optimizer: str, dtype: str, steps: int, eager: bool = False) -> Any:
    """The losses and parameters of so many steps with dropout, on random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (640, 8, 8, 3), dtype=np.uint8)
    labels, mean = rng.integers(0, 10, 640), images.mean(axis=0) / 255
    model = MLP((192, 100, 64, 10), keep_prob=0.8, seed=1, dtype=dtype, backend=backend)
    split = Batches.of(backend, images, labels, dtype, mean)
    rule, loss = OPTIMIZERS[optimizer](model), CrossEntropy(backend=backend)
    if eager:
        plan = make_plan(model, loss, rule, split, 32)
        order = np.random.default_rng([1, 1]).permutation(640).reshape(20, 32)[: min(steps, 20)]
        losses = backend.to_numpy(EagerStep(backend, plan)(backend.asarray(order)))
    else:
        losses = fit(
            model, loss, rule, split, split, batch_size=32, epochs=steps // 20, seed=1
        ).losses
    return np.array(losses), {n: backend.to_numpy(p) for n, p in model.parameters()}


def parity(backend: Backend, given: argparse.Namespace) -> Figures:
    """How far the backend is from NumPy, and from itself, as the issue's limits have it."""
    host, found = load("numpy"), Figures()
    model, other = (
        MLP((3072, 100, 10), seed=5, dtype="float32", backend=b) for b in (backend, host)
    )
    bits = sum(
        int((backend.to_numpy(p).view(np.uint8) != q.view(np.uint8)).sum())
        for (_, p), (_, q) in zip(model.parameters(), other.parameters(), strict=True)
    )
    masks = 0
    for keep_prob in (0.25, 0.5, 0.9):
        for key in ((0, 0, 0), (1234, 7, 3), (2**64 - 1, 2, 2**40)):
            one, two = (b.keep_mask((64, 3072), keep_prob, key) for b in (backend, host))
            masks += int((backend.to_numpy(one) != two).sum())
    found["weights and masks, bits that differ (0)"] = bits + masks
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((64, 12)), rng.integers(0, 5, 64)
    deep = [MLP((12, 16, 8, 5), keep_prob=0.7, seed=2, backend=b) for b in (backend, host)]
    outputs = [m.backend.to_numpy(m.forward(m.backend.asarray(x), False)) for m in deep]
    found["float64 outputs (1e-10)"] = largest(*outputs)
    found["float64 gradients, numerical (1e-6)"] = max(
        check_gradients(deep[0], backend.asarray(x), backend.asarray(labels)).values()
    )
    for optimizer in OPTIMIZERS:
        one, two = (history(b, optimizer, "float64", 100)[0] for b in (backend, host))
        found[f"float64 losses, 100 steps, {optimizer} (1e-10)"] = largest(one, two)
        one, two = (history(b, optimizer, "float32", 60)[0][:50] for b in (backend, host))
        found[f"float32 losses, 50 steps, {optimizer} (1e-4)"] = largest(one, two)
        again = [history(backend, optimizer, "float32", 60) for _ in range(2)]
        same = np.array_equal(again[0][0], again[1][0]) and all(
            np.array_equal(p, again[1][1][name]) for name, p in again[0][1].items()
        )
        found[f"two float32 runs, {optimizer}: bit-identical"] = same
        eager = history(backend, optimizer, "float64", 20, eager=True)[0]
        whole = history(backend, optimizer, "float64", 20)[0]
        found[f"float64 whole steps against op by op, {optimizer} (1e-10)"] = largest(whole, eager)
    a = rng.standard_normal((5, 5))
    found["rel_error of equal arrays (0)"] = rel_error(
        backend.asarray(a), backend.asarray(a), backend=backend
    )
    return found


def median_seconds(backend: Backend, work: Callable[[], Any], repeats: int = 50) -> float:
    """The median time of work() and of waiting for it, less that of waiting alone, over batches."""
    work()
    times = []
    for _ in range(5):
        backend.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        backend.synchronize()
        times.append((time.perf_counter() - started) / repeats)
    return statistics.median(times)


def ceilings(backend: Backend, given: argparse.Namespace) -> Figures:
    """The card's own: a copy, the workloads' products, an empty node of a graph."""
    xp, found = backend.xp, Figures()
    a, b = (backend.zeros((1 << 28,), "float32") for _ in range(2))
    seconds = median_seconds(backend, lambda: xp.copyto(b, a), 10)
    found["device copy, TB/s"] = 2 * a.nbytes / seconds / 1e12
    for m, k, n in ((64, 3072, 3072), (3072, 64, 3072)):
        x, w, z = (backend.zeros(shape, "float32") for shape in ((m, k), (k, n), (m, n)))
        seconds = median_seconds(backend, lambda x=x, w=w, z=z: xp.matmul(x, w, out=z))
        found[f"sgemm ({m}, {k}) by ({k}, {n}), TFLOP/s"] = 2 * m * k * n / seconds / 1e12
    if hasattr(xp, "cuda"):
        nodes, stream = 1000, xp.cuda.Stream(non_blocking=True)
        empty = xp.RawKernel('extern "C" __global__ void empty() {}', "empty")
        empty((1,), (1,), ())
        with stream:
            stream.begin_capture()
            for _ in range(nodes):
                empty((1,), (1,), ())
            graph = stream.end_capture()
        seconds = median_seconds(backend, graph.launch, 5)
        found["empty graph node, us"] = seconds / nodes * 1e6
    return found


def cases(given: argparse.Namespace) -> list[tuple[str, str]]:
    """Every workload with every optimizer."""
    return [(work, rule) for work in benchmark.WORKLOADS for rule in benchmark.LEARNING_RATES]


def rates(backend: Backend, given: argparse.Namespace) -> Figures:
    """Iterations per second of whole steps, and op by op."""
    data, found = benchmark.random_images(), Figures()
    for workload, optimizer in cases(given):
        size = benchmark.WORKLOADS[workload]
        case = benchmark.Case(backend.name, workload, optimizer, size, "float32")
        runs = {
            "whole steps": benchmark.CaseRun(case, data),
            "op by op": benchmark.CaseRun(case, data, eager=True),
        }
        found[f"{workload} {optimizer}"] = in_turn(runs, size, given) | {
            "steps": runs["whole steps"].how
        }
    return found


def peers(backend: Backend, given: argparse.Namespace) -> Figures:
    """Those of PyTorch's and JAX's ways that run here, beside mlpkit, at equal precision."""
    from contenders import GPU_CONTENDERS

    data, found = benchmark.random_images(), Figures()
    for workload, optimizer in cases(given):
        size = benchmark.WORKLOADS[workload]
        case = benchmark.Case(backend.name, workload, optimizer, size, "float32")
        runs: dict[str, Any] = {"mlpkit": benchmark.CaseRun(case, data)}
        model = build_network(workload, 0.0, 0, "float32", "numpy")
        weights = [p.copy() for _, p in model.parameters()]
        for name, make in GPU_CONTENDERS.items():
            try:
                runs[name] = make(weights, optimizer, size, data)
                runs[name](next(benchmark.orders(size)))
            except Exception as error:  # whatever it is, the others go on
                runs.pop(name, None)
                print(f"{name} left out: {type(error).__name__}: {error}".splitlines()[0])
        row = in_turn(runs, size, given)
        ours = row["mlpkit"]["rounds"]
        for name in runs:
            ratios = [a / b for a, b in zip(ours, row[name]["rounds"], strict=True)]
            row[name]["mlpkit_is_times_as_fast"] = round(statistics.median(ratios), 3)
        found[f"{workload} {optimizer}"] = row
    return found


def in_turn(runs: dict[str, Any], size: int, given: argparse.Namespace) -> Figures:
    """Each one's rate, round by round in turn."""
    rounds: dict[str, list[float]] = {name: [] for name in runs}
    batches = {name: benchmark.orders(size) for name in runs}
    for name, run in runs.items():
        run(next(batches[name]))
    for _ in range(given.rounds):
        for name, run in runs.items():
            rounds[name].append(benchmark.rate(run, batches[name], given.seconds))
    return {
        name: {"iterations_per_second": statistics.median(r), "rounds": [round(x, 1) for x in r]}
        for name, r in rounds.items()
    }


PARTS = {"parity": parity, "ceilings": ceilings, "rates": rates, "peers": peers}


def main() -> None:
    """Run a part, print it and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # not TF32
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        backend = load(given.backend)
        with backend.failures():
            found = PARTS[given.part](backend, given)
    except (BackendUnavailable, DeviceError) as error:
        sys.exit(f"{given.part}: {error}")
    for name, value in found.items():
        print(f"{name:60} {json.dumps(value)}", flush=True)
    device = re.sub(r"\W+", "-", backend.device_name().lower()).strip("-")
    given.out.mkdir(exist_ok=True)
    target = given.out / f"cuda-{device}.json"
    content = json.loads(target.read_text()) if target.is_file() else {}
    content |= {"backend": backend.details(), "versions": versions(("torch", "jax"))}
    content[given.part] = found
    write_json(target, content)
    print(target)


if __name__ == "__main__":
    main()
