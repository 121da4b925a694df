"""What a GPU has to show, a part at a time; `make cuda` runs all of them.

    python bench/gpu.py PART [--backend cupy] [--seconds 1] [--rounds 5] [--cases tinynet-sgd,...]

device: what it is and what the libraries are; parity: NumPy against the GPU, and checks, the
assignment's, with exit status 1 beyond a limit; ceilings: what the card does by itself; rates:
mlpkit's steps, in each way that it has for them; torch and jax: those libraries, where they are
installed, and slow-torch, what compiles for minutes. Each line is printed, and written into
bench/results/cuda-DEVICE.json, as soon as it is found; --cases goes on with a part that was cut
short. Needs NumPy and CuPy alone. bench/gpu_table.py makes tables and a chart of the file.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # when it is run by its path
from bench.arguments import count, positive
from bench.contenders import GPU_CONTENDERS
from bench.gpu_parity import checks, parity
from bench.turns import Turns
from mlpkit import benchmark
from mlpkit.provenance import versions
from mlpkit.run_files import write_json
from mlpkit_backends import Backend, BackendUnavailable, DeviceError, load
from mlpkit_backends.base import EagerStep, Step
from mlpkit_backends.plan import Plan

RESULTS = Path(__file__).parent / "results"
OURS = "mlpkit"  # as its backend compiles steps
OP_BY_OP = f"{OURS} op by op"
# Handed over at a time, an epoch's: training waits for the device as rarely. Op by op, where so
# many take seconds and a wait is nothing beside them, CHUNK.
STEPS = 768
APART = 1e-4  # how far the first losses of two contenders may be from each other, relatively
Findings = Iterator[tuple[Any, ...]]  # a name, what was found, and for errors how large it may be


def device(backend: Backend, given: argparse.Namespace) -> Findings:
    """The device in words, and the libraries' versions."""
    yield from backend.details().items()
    yield from versions(("torch", "jax")).items()


def median_seconds(backend: Backend, work: Callable[[], Any], repeats: int = 50) -> float:
    """The median over batches of the time that work() takes, its end waited for once a batch."""
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


def ceilings(backend: Backend, given: argparse.Namespace) -> Findings:
    """The card's own: a copy, the workloads' products, an empty node of a graph."""
    xp, rng = backend.xp, np.random.default_rng(0)
    a, b = (backend.zeros((given.elements,), "float32") for _ in range(2))
    seconds = median_seconds(backend, lambda: xp.copyto(b, a), 10)
    yield "device copy, TB/s", 2 * a.nbytes / seconds / 1e12
    for m, k, n in ((64, 3072, 3072), (3072, 64, 3072)):
        # Numbers, as a card multiplies zeros faster, and more of them than its cache holds.
        products = [
            [backend.asarray(rng.random(shape, "float32")) for shape in ((m, k), (k, n), (m, n))]
            for _ in range(4)
        ]

        def multiply(products: list[Any] = products) -> None:
            for x, w, z in products:
                xp.matmul(x, w, out=z)

        seconds = median_seconds(backend, multiply) / len(products)
        yield f"sgemm ({m}, {k}) by ({k}, {n}), TFLOP/s", 2 * m * k * n / seconds / 1e12
    if hasattr(xp, "cuda"):
        nodes, stream = 1000, xp.cuda.Stream(non_blocking=True)
        empty = xp.RawKernel('extern "C" __global__ void empty() {}', "empty")
        empty((1,), (1,), ())
        with stream:
            stream.begin_capture()
            for _ in range(nodes):
                empty((1,), (1,), ())
            graph = stream.end_capture()
        yield "empty graph node, us", median_seconds(backend, graph.launch, 5) / nodes * 1e6


def cases() -> list[tuple[str, str]]:
    """Every workload with every optimizer; those that differ most come first, should time run
    out."""
    rules = sorted(benchmark.LEARNING_RATES, key=["sgd", "adam", "sgdm", "rmsprop"].index)
    return [(work, rule) for rule in rules for work in benchmark.WORKLOADS]


def chosen(names: str) -> list[tuple[str, str]]:
    """The cases of those names, as tinynet-sgd,fcn-adam."""
    known = {f"{work}-{rule}": (work, rule) for work, rule in cases()}
    if unknown := set(names.split(",")) - set(known):
        said = f"{', '.join(sorted(unknown))}: the cases are {', '.join(known)}"
        raise argparse.ArgumentTypeError(said)
    return [known[name] for name in names.split(",")]


def levels(backend: Backend) -> dict[str, Callable[[Plan], Step]]:
    """The ways that mlpkit has for a step, the best first."""
    found: dict[str, Callable[[Plan], Step]] = {OURS: backend.compile}
    if backend.name == "cupy":

        def graphs(plan: Plan) -> Step:
            from mlpkit_backends.captured import CapturedStep
            from mlpkit_backends.cuda_device import CudaDevice

            assert plan.program is not None
            return CapturedStep(plan, plan.program, CudaDevice(plan.dtype))

        found[f"{OURS} as graphs of cuBLAS's products"] = graphs
    return found | {OP_BY_OP: lambda plan: EagerStep(backend, plan)}


def in_turns(
    backend: Backend,
    given: argparse.Namespace,
    contenders: Callable[[benchmark.Case, benchmark.Data], dict[str, Callable[[], Any]]],
) -> Findings:
    """A row a case: iterations per second of its contenders in turns, OURS the first of them."""
    data = benchmark.random_images()
    for workload, optimizer in given.cases or cases():
        size = benchmark.WORKLOADS[workload]
        turns = Turns(size)
        case = benchmark.Case(backend.name, workload, optimizer, size, "float32")
        for name, make in contenders(case, data).items():
            turns.add(name, make, benchmark.CHUNK if name == OP_BY_OP else STEPS)
        turns.go(given.rounds, given.seconds)
        yield f"{workload} {optimizer}", {"steps": turns.how(OURS)} | turns.row(OURS)
        yield from apart(f"{workload} {optimizer}", turns)


def rates(backend: Backend, given: argparse.Namespace) -> Findings:
    """mlpkit's steps, a way beside the other."""
    return in_turns(
        backend,
        given,
        lambda case, data: {
            name: partial(benchmark.CaseRun, case, data, step)
            for name, step in levels(backend).items()
        },
    )


def beside(backend: Backend, given: argparse.Namespace, others: dict[str, Any]) -> Findings:
    """mlpkit beside others, at equal precision and from the same weights."""

    def contenders(case: benchmark.Case, data: benchmark.Data) -> dict[str, Callable[[], Any]]:
        ways = {OURS: benchmark.CaseRun} | others
        return {name: partial(make, case, data) for name, make in ways.items()}

    return in_turns(backend, given, contenders)


def apart(case: str, turns: Turns) -> Findings:
    """How far everyone's first losses are from ours."""
    for name, error in turns.apart(OURS).items():
        yield f"{case}: first losses of {name} beside {OURS}", error, APART


PARTS: dict[str, Callable[[Backend, argparse.Namespace], Findings]] = {
    "device": device,
    "parity": lambda backend, given: parity(backend),
    "checks": lambda backend, given: checks(backend),
    "ceilings": ceilings,
    "rates": rates,
    **{part: partial(beside, others=those) for part, those in GPU_CONTENDERS.items()},
}


def found_before(target: Path) -> dict[str, Any]:
    """What other parts have written; nothing where that is damaged."""
    try:
        content = json.loads(target.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def save(target: Path, content: dict[str, Any]) -> str:
    """Write the findings, and say where. A folder that can't be written to ends no part."""
    try:
        target.parent.mkdir(exist_ok=True)
        write_json(target, content)
    except OSError as error:
        return f"{target} can't be written ({error.strerror}): what was found stands above alone"
    return str(target)


def run(part: str, backend: Backend, given: argparse.Namespace) -> bool:
    """Run a part, printing and writing each thing that it finds; whether all is within limits."""
    target = given.out / f"cuda-{benchmark.slug(backend.device_name())}.json"
    content = found_before(target)
    # Some cases stand beside those that were found before.
    found = content[part] = content.get(part, {}) if given.cases else {}
    well, where = True, "nothing was found"
    for what, value, *limit in PARTS[part](backend, given):
        found[what] = value
        line = f"{what:60} {json.dumps(value)}"
        if limit:
            within = value <= limit[0]
            well &= within
            line += f" <= {limit[0]:g}  {'ok' if within else 'FAILED'}"
            found[what] = {"error": value, "limit": limit[0], "within": within}
        print(line, flush=True)
        where = save(target, content)
    print(where)
    return well


def main() -> None:
    """Run a part; exit status 1 where an error is beyond its limit, 2 where it can't run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--seconds", type=positive, default=1.0, help="a turn")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--cases", type=chosen, help="as tinynet-sgd,fcn-adam; all, if none")
    parser.add_argument("--elements", type=count, default=1 << 28, help="of the copy")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    faulthandler.enable()  # says where a library ended the process
    os.environ.pop("CUPY_TF32", None)  # float32's own products, as PyTorch's and JAX's
    os.environ["MLPKIT_BACKEND"] = given.backend  # for what takes the default, as the checks do
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        backend = load(given.backend)
        with backend.failures():
            well = run(given.part, backend, given)
    except (BackendUnavailable, DeviceError) as error:
        print(f"{given.part}: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(not well)


if __name__ == "__main__":
    main()
