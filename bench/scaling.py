"""Rate and peak memory against batch size and hidden width, beside what the machine allows.

    python bench/scaling.py [--seconds 3] [--backend numba] [--out FOLDER]

The network is 3072 -> width -> 10 in float32 with SGD. Its two large products, forward and weight
gradient, are timed by themselves, as NumPy's BLAS makes them. The machine's limit is what its
fastest product and its copies leave of a step: the larger of both products' operations at the rate
of a 3072 x 3072 x 3072 product, and three passes over the weights (read forward, read and written
backward) at the rate of a copy. Writes bench/results/scaling-BACKEND-PROCESSOR.json and .png. Peak
memory includes 147 MiB of images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from mlpkit import benchmark
from mlpkit.plotting import save
from mlpkit.provenance import peak_rss_bytes
from mlpkit.run_files import write_json
from mlpkit_backends import BackendUnavailable, load

sys.path.insert(0, str(Path(__file__).parents[1]))  # when it is run by its path
from bench.arguments import folder, positive

RESULTS = Path(__file__).parent / "results"
BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)
WIDTHS = (256, 512, 1024, 2048, 4096, 8192)
BATCH_SIZE, WIDTH = 64, 3072  # of the other axis's points
INPUTS = 3072


def best_seconds(work: Callable[[], Any], repeats: int = 10) -> float:
    """How long the work takes, the best of so many times."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def limit_seconds(batch_size: int, width: int) -> float:
    """What a step takes at least, by the machine's rates of arithmetic and of copying."""
    a, b, c = (np.ones((INPUTS, INPUTS), np.float32) for _ in range(3))
    flops = 2 * INPUTS**3 / best_seconds(lambda: np.matmul(a, b, out=c))
    bytes_per_second = 2 * a.nbytes / best_seconds(lambda: np.copyto(b, a))
    weights = INPUTS * width
    return max(2 * 2 * batch_size * weights / flops, 3 * 4 * weights / bytes_per_second)


def gemm_seconds(batch_size: int, width: int) -> float:
    """How long NumPy's BLAS takes for x w and xᵀ d, the best of ten."""
    rng = np.random.default_rng(0)
    x = rng.random((batch_size, INPUTS), np.float32)
    w, dw = (rng.random((INPUTS, width), np.float32) for _ in range(2))
    d = rng.random((batch_size, width), np.float32)
    forward = best_seconds(lambda: np.matmul(x, w, out=d))
    return forward + best_seconds(lambda: np.matmul(x.T, d, out=dw))


def point(backend: str, batch_size: int, width: int, seconds: float) -> dict[str, Any]:
    """One point's figures, in this process."""
    case = benchmark.Case(backend, str(width), "sgd", batch_size, "float32")
    (measured,) = benchmark.measure([case], benchmark.random_images(), seconds)
    peak = peak_rss_bytes()
    time.sleep(benchmark.PAUSE)
    return {
        "batch_size": batch_size,
        "width": width,
        "iterations_per_second": measured["iterations_per_second"],
        "blas_products": 1 / gemm_seconds(batch_size, width),
        "limit": 1 / limit_seconds(batch_size, width),
        "peak_rss_bytes": peak,
    }


def scaling_figure(results: list[dict[str, Any]], title: str) -> Figure:
    """Rate with the limit above, memory below; against batch size left, against width right."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2, sharex="col")
    sides = (("batch_size", "width", WIDTH), ("width", "batch_size", BATCH_SIZE))
    for column, (key, other, fixed) in enumerate(sides):
        rows = sorted((r for r in results if r[other] == fixed), key=lambda r: int(r[key]))
        x = [r[key] for r in rows]
        rate, memory = axes[0, column], axes[1, column]
        rate.loglog(x, [r["limit"] for r in rows], "k--", label="the machine's limit")
        rate.loglog(x, [r["blas_products"] for r in rows], ":", label="two products of BLAS alone")
        rate.loglog(x, [r["iterations_per_second"] for r in rows], "o-", label="mlpkit")
        memory.semilogx(x, [r["peak_rss_bytes"] / 2**20 for r in rows], "o-")
        memory.set_ylim(bottom=0)
        memory.set_xticks(x, [str(value) for value in x], rotation=30)
        memory.minorticks_off()
        name, held = key.replace("_", " "), other.replace("_", " ")
        rate.set(title=f"{held} {fixed}", ylabel="iterations / s")
        memory.set(xlabel=name, ylabel="peak memory, MiB")
        rate.legend()
        for panel in (rate, memory):
            panel.grid(alpha=0.3)
    return figure


def main() -> None:
    """Measure each point in a process of its own, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=positive, default=3.0, help="for each point; default: 3")
    parser.add_argument("--backend", default="numba", help="default: numba")
    parser.add_argument("--out", type=folder, default=RESULTS, help="the folder for the figures")
    parser.add_argument("--point", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        print(json.dumps(point(given.backend, *given.point, given.seconds)))
        return
    try:
        load(given.backend)
    except (BackendUnavailable, ValueError) as error:
        sys.exit(str(error))
    machine = benchmark.machine()
    about = machine | {"backend": given.backend, "seconds": given.seconds}
    target = benchmark.results_path(given.out, f"scaling-{given.backend}")
    # What is measured outlives a stop, and doesn't take the place of whole figures.
    partial = target.with_suffix(".partial.json")
    points = {(size, WIDTH) for size in BATCH_SIZES} | {(BATCH_SIZE, width) for width in WIDTHS}
    console = Console(stderr=True)
    results = []
    try:
        for size, width in track(sorted(points), "measuring", console=console, transient=True):
            command = [sys.executable, __file__, "--backend", given.backend]
            command += ["--seconds", str(given.seconds), "--point", str(size), str(width)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(said)
            results.append(row)
            write_json(partial, {**about, "results": results})
            print(
                f"batch {size:5} width {width:5}  {row['iterations_per_second']:8.1f} it/s, "
                f"{row['iterations_per_second'] / row['limit']:.2f} of the limit, "
                f"{row['peak_rss_bytes'] / 2**20:.0f} MiB",
                flush=True,
            )
    except subprocess.CalledProcessError:
        sys.exit("the point above couldn't be measured")  # in its own words, which it has printed
    except KeyboardInterrupt:
        sys.exit(f"stopped; the points above are in {partial}" if results else "stopped")
    partial.replace(target)
    title = f"3072 → width → 10, SGD, float32, {given.backend}, {machine['processor']}"
    save(scaling_figure(results, title), target.with_suffix(".png"))
    print(target)


if __name__ == "__main__":
    main()
