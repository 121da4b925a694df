"""mlpkit beside PyTorch, JAX, scikit-learn and plain NumPy, on this machine's CPU.

    python bench/peers.py [--rounds 5] [--seconds 2] [--workload tinynet] [--optimizer sgd]
        [--out FOLDER]

Needs `pip install -e ".[bench]"`. Where OPENBLAS_CORETYPE is set, NumPy's and SciPy's BLAS run
slower than they could: unset it. Each contender is a process of its own with all cores; in each
round each has its turn. What else the machine does falls on all, but not on all alike: threads that
wait for each other lose most. A row's ratios are medians over the rounds of mlpkit's rate to that
contender's in the same round. Writes
bench/results/cpu-PROCESSOR.json and .png, beside what is there of other workloads and optimizers
where that was measured in the same way: a virtual machine may call any processor by one name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpkit import benchmark
from mlpkit.plotting import save
from mlpkit.provenance import versions
from mlpkit.run_files import write_json
from mlpkit_backends import BackendUnavailable, load
from mlpkit_backends.threads import thread_count

sys.path.insert(0, str(Path(__file__).parents[1]))  # when it is run by its path
from bench.arguments import count, folder, positive
from bench.contenders import CONTENDERS, LACKING
from bench.turns import figures
from bench.workload import Run

RESULTS = Path(__file__).parent / "results"
OURS = "mlpkit numba"


def build(name: str, workload: str, optimizer: str) -> tuple[Run, Any]:
    """A contender's function, and the batches for it."""
    size = benchmark.WORKLOADS[workload]
    case = benchmark.Case("numba", workload, optimizer, size, "float32")
    return CONTENDERS[name](case, benchmark.random_images()), benchmark.orders(size)


def serve(name: str, workload: str, optimizer: str) -> None:
    """A contender's process: for each line of input, a number of seconds, a line with the rate."""
    run, batches = build(name, workload, optimizer)
    run(next(batches))  # warms up: compilers, thread pools, memory
    print("ready", flush=True)
    for line in sys.stdin:
        print(benchmark.rate(run, batches, float(line)), flush=True)


class Contender:
    """A contender in a process of its own."""

    def __init__(self, name: str, workload: str, optimizer: str) -> None:
        self.name, self.rates = name, list[float]()
        # Not a pipe, which would fill up and stop it.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in stop
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, workload, optimizer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.runs = self.output.readline() == "ready\n"

    def go(self, seconds: float) -> None:
        """Take a turn."""
        if not self.runs:
            return
        try:
            self.input.write(f"{seconds}\n")
            self.input.flush()
            self.rates.append(float(self.output.readline()))
        except (OSError, ValueError):  # it has ended
            self.runs = False

    def stop(self) -> str:
        """End the process; what it said last, where it couldn't run."""
        with suppress(OSError):
            self.process.communicate()
        self.errors.seek(0)
        said = self.errors.read().strip()
        self.errors.close()
        return said.splitlines()[-1] if said else "it ended without a word"


def compare(workload: str, optimizer: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Every contender's rates and its ratio to mlpkit, on one workload and optimizer."""
    names = [name for name in CONTENDERS if (name, optimizer) not in LACKING]
    contenders = [Contender(name, workload, optimizer) for name in names]
    for _ in range(rounds):
        for contender in contenders:
            time.sleep(benchmark.PAUSE)
            contender.go(seconds)
    said_last = [contender.stop() for contender in contenders]
    ours = contenders[names.index(OURS)].rates
    if len(ours) < rounds:
        raise SystemExit(f"{OURS} couldn't run: {said_last[names.index(OURS)]}")
    rows = []
    for contender, said in zip(contenders, said_last, strict=True):
        if not contender.runs:
            print(f"{contender.name} left out: {said}", file=sys.stderr)
            continue
        about = {"contender": contender.name, "workload": workload, "optimizer": optimizer}
        rows.append(about | figures(contender.rates, ours))
    return rows


def show(results: list[dict[str, Any]]) -> None:
    """The table: a row a contender, a column a workload and optimizer, rate and ratio."""
    cases = list(dict.fromkeys((r["workload"], r["optimizer"]) for r in results))
    table = Table("it/s (mlpkit is x as fast)")
    for workload, optimizer in cases:
        table.add_column(f"{workload}\n{optimizer}", justify="right")
    for name in CONTENDERS:
        cells = {
            (r["workload"], r["optimizer"]): f"{r['iterations_per_second']:.0f}"
            + ("" if name == OURS else f" ({r['mlpkit_is_times_as_fast']:.2f})")
            for r in results
            if r["contender"] == name
        }
        table.add_row(name, *(cells.get(case, "") for case in cases))
    Console(width=130).print(table)


def found_before(
    target: Path, about: dict[str, Any], cases: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    """The rows of an earlier run's file that this run of those cases leaves as they are; SystemExit
    where they were measured in another way, as they would be taken for this machine's."""
    if not target.is_file():
        return []
    try:
        before = json.loads(target.read_text())
        rows = [r for r in before["results"] if (r["workload"], r["optimizer"]) not in cases]
        differing = [name for name, value in about.items() if before.get(name) != value]
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.exit(f"{target} is no file of bench/peers.py's: move it away")
    if rows and differing:
        sys.exit(
            f"{target} has other cases, measured with another {', another '.join(differing)}: name "
            "another folder with --out, or move it away"
        )
    return rows


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=count, default=5, help="of turns; default: 5")
    parser.add_argument(
        "--seconds", type=positive, default=2.0, help="a contender's turn; default: 2"
    )
    parser.add_argument("--out", type=folder, default=RESULTS, help="the folder for the figures")
    parser.add_argument("--workload", choices=list(benchmark.WORKLOADS))
    parser.add_argument("--optimizer", choices=list(benchmark.LEARNING_RATES))
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
        return
    if hasattr(os, "sched_setaffinity"):  # of contenders, too: not all take a number of threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: thread_count()])
    try:
        load("numba")  # its absence is said before anything is measured
    except (BackendUnavailable, ValueError) as error:
        sys.exit(str(error))
    cases = [
        (workload, optimizer)
        for workload in benchmark.WORKLOADS
        for optimizer in benchmark.LEARNING_RATES
        if given.workload in (None, workload) and given.optimizer in (None, optimizer)
    ]
    about = benchmark.machine() | {
        "versions": versions(("torch", "jax", "scikit-learn")),
        "rounds": given.rounds,
        "seconds": given.seconds,
        "dtype": "float32",
    }
    target = benchmark.results_path(given.out, "cpu")
    # What is measured outlives a stop, and doesn't take the place of whole figures.
    partial = target.with_suffix(".partial.json")
    results = found_before(partial if partial.is_file() else target, about, cases)
    before = len(results)
    try:
        for case in track(cases, "measuring", console=Console(stderr=True), transient=True):
            rows = compare(*case, given.rounds, given.seconds)
            results += rows
            write_json(partial, {**about, "results": results})
            nearest = min(rows[1:], key=lambda row: row["mlpkit_is_times_as_fast"])
            print(
                f"{' '.join(case):14} {rows[0]['iterations_per_second']:6.0f} it/s, "
                f"{nearest['mlpkit_is_times_as_fast']:.2f} times {nearest['contender']}'s",
                flush=True,
            )
    except KeyboardInterrupt:
        sys.exit(f"stopped; the cases above are in {partial}" if results[before:] else "stopped")
    partial.replace(target)
    show(results)
    title = benchmark.title(about, "float32")
    save(benchmark.bar_figure(results, title, "contender"), target.with_suffix(".png"))
    print(target)


if __name__ == "__main__":
    main()
