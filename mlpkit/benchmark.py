"""Iterations per second of whole training steps, by backend, workload and optimizer.

An iteration gathers a batch from 50,000 uint8 images by shuffled index, normalises it, runs
forward, loss, backward and update, and records the loss. The images are random: no step's cost
depends on what they show.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpkit_backends import available, load
from mlpkit_backends.base import Step
from mlpkit_backends.plan import Plan
from mlpkit_backends.threads import thread_count

from .evaluation import Batches
from .losses import CrossEntropy
from .planning import make_plan
from .provenance import versions
from .recipes import OPTIMIZERS, RECIPES, build_network, build_optimizer, network_title
from .seeding import epoch_order
from .training import CHUNK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 50_000
ROUNDS = 5
PAUSE = 0.2  # s before a turn, in which the threads of the one before go to sleep
RARELY = 0.05  # s between two waits for a device: training waits no more often
Data = tuple[Any, Any, Any]  # images, labels, mean image
# The recipes' batch size by workload, and their learning rate by optimizer.
WORKLOADS = {"tinynet": RECIPES["tinynet"].batch_size, "fcn": RECIPES["sgd"].batch_size}
LEARNING_RATES = {name: RECIPES[name].lr for name in OPTIMIZERS}


@dataclass(frozen=True)
class Case:
    """What is measured."""

    backend: str
    workload: str
    optimizer: str
    batch_size: int
    dtype: str


def cases(
    backend: str, workload: str | None, optimizer: str | None, batch_size: int | None, dtype: str
) -> list[Case]:
    """The cases that a command line asks for: "all" backends are those that run here."""
    names = [name for name, state in available().items() if state == "ok"]
    chosen = names if backend == "all" else [load(backend).name]
    for what, given, known in (
        ("workload", workload, WORKLOADS),
        ("optimizer", optimizer, LEARNING_RATES),
    ):
        if given is not None and given not in known:
            raise ValueError(f"the {what} must be one of {', '.join(known)}; got {given!r}")
    if batch_size is not None and not 1 <= batch_size <= IMAGES // CHUNK:
        raise ValueError(
            f"the batch size must be from 1 to {IMAGES // CHUNK}, as {CHUNK} batches come from "
            f"{IMAGES} images; got {batch_size}"
        )
    return [
        Case(name, work, rule, batch_size or WORKLOADS[work], dtype)
        for work in ([workload] if workload else WORKLOADS)
        for rule in ([optimizer] if optimizer else LEARNING_RATES)
        for name in chosen
    ]


def random_images() -> Data:
    """Images uint8 (IMAGES, 32, 32, 3), labels int64 and a mean image to go with them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, IMAGES), np.full((32, 32, 3), 0.5)


class CaseRun:
    """A function of batches' indices (K, N) on the host that trains on them in turn and returns
    their losses, on the host. make_step: a step of a plan, instead of what the backend compiles;
    how: in words, how it runs."""

    def __init__(
        self,
        case: Case,
        data: Data,
        make_step: Callable[[Plan], Step] | None = None,
    ) -> None:
        self.backend = load(case.backend)
        model = build_network(case.workload, 0.0, 0, case.dtype, self.backend)
        optimizer = build_optimizer(case.optimizer, model, LEARNING_RATES[case.optimizer])
        images, labels, mean = data
        batches = Batches.of(self.backend, images, labels, case.dtype, mean)
        loss_func = CrossEntropy(backend=self.backend)
        plan = make_plan(model, loss_func, optimizer, batches, case.batch_size)
        self.step = (make_step or self.backend.compile)(plan)
        self.how = self.step.how

    def __call__(self, order: Any) -> Any:
        return self.backend.to_numpy(self.step(self.backend.asarray(order)))


def orders(batch_size: int, steps: int = CHUNK) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    """Batches' indices (steps, batch_size), epoch after epoch of permutations, without end."""
    size, epoch = steps * batch_size, 0
    while True:
        epoch += 1
        order = epoch_order(IMAGES, 0, epoch)
        for first in range(0, IMAGES - size + 1, size):
            yield order[first : first + size].reshape(steps, batch_size)


def rate(run: Callable[[Any], Any], batches: Iterator[Any], seconds: float) -> float:
    """Iterations per second over so many seconds, or one chunk; a chunk's losses come to the host
    at its end. Drawing the batches' indices isn't timed."""
    done, took = 0, 0.0
    while not done or took < seconds:
        order = next(batches)
        started = time.perf_counter()
        done += len(run(order))
        took += time.perf_counter() - started
    return done / took


def chunk_of(run: Callable[[Any], Any], batch_size: int) -> int:
    """How many steps to hand over at a time: CHUNK, twice that, and so on, as many as fit into
    RARELY and an epoch."""
    fitting = min(RARELY * rate(run, orders(batch_size), 0), IMAGES // batch_size)
    steps = CHUNK
    while 2 * steps <= fitting:
        steps *= 2
    return steps


def measure(cases: Sequence[Case], data: Data, seconds: float) -> list[dict[str, Any]]:
    """Each case's figures for the table and the JSON: iterations per second in each of ROUNDS
    rounds, and their median. A case has `seconds` in all, after two chunks that warm up. In each
    round each has its turn, so that no moment in which the machine does something else is one
    case's alone."""
    runs = []
    for case in cases:
        with load(case.backend).failures():
            run = CaseRun(case, data)
            run(next(orders(case.batch_size)))
            runs.append((case, run, orders(case.batch_size, chunk_of(run, case.batch_size))))
    rates: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case, run, batches in runs:
            time.sleep(PAUSE)
            with load(case.backend).failures():
                rates[case].append(rate(run, batches, seconds / ROUNDS))
    return [
        asdict(case)
        | {
            "steps": run.how,
            "iterations_per_second": statistics.median(rates[case]),
            "rounds": [round(rate, 2) for rate in rates[case]],
        }
        for case, run, _ in runs
    ]


def machine(backends: Iterable[str] = ()) -> dict[str, Any]:
    """What the figures were measured on and with; where one of these backends ran on a GPU, that,
    too."""
    from mlpkit_backends.cpu import blas_libraries, processor_name

    processor = processor_name()
    gpus = {load(name).device_name() for name in backends} - {processor}
    return {
        **({"gpu": gpus.pop()} if gpus else {}),
        "processor": processor,
        "threads": thread_count(),
        "blas": blas_libraries(),
        "versions": versions(),
    }


def slug(name: str) -> str:
    """A name in small letters and dashes."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def results_path(folder: Path, kind: str) -> Path:
    """folder/KIND-PROCESSOR.json."""
    from mlpkit_backends.cpu import processor_name

    return folder / f"{kind}-{slug(processor_name())}.json"


def title(machine: dict[str, Any], dtype: str = "") -> str:
    """What figures were measured on, in words."""
    gpu = machine.get("gpu")
    about = [*([gpu] if gpu else []), machine["processor"], f"{machine['threads']} threads"]
    return ", ".join([*about, dtype] if dtype else about)


def bar_figure(results: list[dict[str, Any]], title: str, label: str = "backend") -> Figure:
    """Iterations per second, a panel a workload, a group of bars an optimizer, a bar a contender;
    `label` is the key that names it. A line on each bar is the range of its rounds."""
    works = list(dict.fromkeys(r["workload"] for r in results))
    rules = list(dict.fromkeys(r["optimizer"] for r in results))
    names = list(dict.fromkeys(r[label] for r in results))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6 * len(works)), layout="constrained")
    figure.suptitle(title)
    width = 0.8 / len(names)
    for axes, work in zip(figure.subplots(len(works), 1, squeeze=False).flat, works, strict=True):
        for i, name in enumerate(names):
            rows = [r for r in results if (r["workload"], r[label]) == (work, name)]
            rates = [r["iterations_per_second"] for r in rows]
            places = [
                rules.index(r["optimizer"]) + (i - (len(names) - 1) / 2) * width for r in rows
            ]
            spread = [
                [rate - min(r["rounds"]) for rate, r in zip(rates, rows, strict=True)],
                [max(r["rounds"]) - rate for rate, r in zip(rates, rows, strict=True)],
            ]
            axes.bar(
                places, rates, width, label=name, yerr=np.maximum(spread, 0), error_kw={"lw": 0.8}
            )
        axes.set_xticks(range(len(rules)), rules)
        sizes = {r.get("batch_size", WORKLOADS[work]) for r in results if r["workload"] == work}
        batches = ", ".join(map(str, sorted(sizes)))
        axes.set(title=f"{network_title(work)}, batch {batches}", ylabel="iterations / s")
        axes.grid(axis="y", alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
