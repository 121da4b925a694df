"""Tables and a chart of what bench/gpu.py has found on a GPU.

    python bench/gpu_table.py bench/results/cuda-DEVICE.json

Prints mlpkit's rates and the others' by case, and beside them what mlpkit is to reach; writes the
chart beside the file, as .png. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # when it is run by its path
from bench.contenders import GPU_CONTENDERS
from bench.gpu import OURS
from mlpkit import benchmark
from mlpkit.plotting import save

# What an H200 does: float32 operations a second without tensor cores, and bytes a second.
FLOPS, BYTES = 60e12, 4.3e12
# By optimizer, how often an update goes over an array of the weights' size: it reads and writes the
# weights and the state.
PASSES = {"sgd": 2, "sgdm": 4, "rmsprop": 4, "adam": 6}
EAGER = "PyTorch eager"
# What mlpkit is to reach: how many times as fast as PyTorch's eager steps, its best graph and
# JAX's best; for TinyNet also the share of the floor.
MARKS: dict[tuple[str, str], tuple[float, ...]] = {
    ("tinynet", "sgd"): (3, 1.25, 1.25, 0.6),
    ("tinynet", "adam"): (2, 1.2, 1.2, 0.7),
    **{("fcn", rule): (10, 2, 2) for rule in benchmark.LEARNING_RATES},
}
BESIDE = {  # what those marks are measured against
    EAGER: {EAGER},
    "PyTorch's best graph": {*GPU_CONTENDERS["torch"], *GPU_CONTENDERS["slow-torch"]} - {EAGER},
    "JAX's best": {*GPU_CONTENDERS["jax"]},
}
Cases = dict[tuple[str, str], dict[str, Any]]  # by workload and optimizer: figures by contender


def floor(optimizer: str) -> float:
    """Iterations a second of TinyNet that float32's own units can't exceed, with its 3072 by 3072
    weights and batches of 64. Forward and the update with its gradient are a product each, that
    takes as long as its operations or as the bytes that must be read and written, whichever is
    longer. mlpkit's products run on the tensor cores, whose own limit is higher."""
    weights = 3072 * 3072
    product, once = 2 * 64 * weights / FLOPS, 4 * weights / BYTES
    return 1 / (max(product, once) + max(product, PASSES[optimizer] * once))


def measured(content: dict[str, Any]) -> Cases:
    """Everyone's figures: mlpkit's own from the first part that has them, as each part measures it
    anew beside its contenders."""
    found: Cases = {}
    for work in benchmark.WORKLOADS:
        for rule in benchmark.LEARNING_RATES:
            for part in ("rates", *GPU_CONTENDERS):
                row = content.get(part, {}).get(f"{work} {rule}", {})
                for name, figures in row.items():
                    if isinstance(figures, dict):
                        found.setdefault((work, rule), {}).setdefault(name, figures)
    return found


def ratios(figures: dict[str, Any], names: set[str]) -> list[float]:
    """How many times as fast as those mlpkit is, where that was measured."""
    found = (figures.get(name, {}).get("mlpkit_is_times_as_fast") for name in names)
    return [ratio for ratio in found if ratio]


def share(figures: dict[str, Any], optimizer: str) -> float | None:
    """How much of TinyNet's floor mlpkit reaches."""
    rate = figures.get(OURS, {}).get("iterations_per_second")
    return rate and rate / floor(optimizer)


def cell(figures: dict[str, Any] | None, ours: bool) -> str:
    """A contender's rate, and how many times as fast mlpkit is."""
    if not figures:
        return ""
    if "left_out" in figures:
        return "left out"
    rate, ratio = figures["iterations_per_second"], figures.get("mlpkit_is_times_as_fast")
    return f"{rate:.0f}" if ours or ratio is None else f"{rate:.0f} ({ratio:.2f})"


def rates_table(cases: Cases, workload: str) -> Table:
    """A row a contender, a column an optimizer."""
    rules = [rule for work, rule in cases if work == workload]
    table = Table(f"{workload}, it/s (mlpkit is x as fast)")
    for rule in rules:
        table.add_column(rule, justify="right")
    # Of every case, as one that was cut short lacks some.
    names = dict.fromkeys(name for rule in rules for name in cases[workload, rule])
    for name in names:
        row = (cell(cases[workload, rule].get(name), name == OURS) for rule in rules)
        table.add_row(name, *row)
    if workload == "tinynet":
        shares = [share(cases[workload, rule], rule) for rule in rules]
        table.add_row(
            "mlpkit's share of an H200's floor", *(f"{s:.2f}" if s else "" for s in shares)
        )
    return table


def marks(cases: Cases) -> Iterator[tuple[str, str, float | None, float]]:
    """Each mark: the case, beside what, what was measured, and the mark."""
    for (work, rule), wanted in MARKS.items():
        figures = cases.get((work, rule), {})
        found = [min(ratios(figures, names), default=None) for names in BESIDE.values()]
        found.append(share(figures, rule))
        # TinyNet alone has a mark for the floor.
        for beside, value, mark in zip((*BESIDE, "the floor"), found, wanted, strict=False):
            yield f"{work} {rule}", beside, value, mark


def marks_table(cases: Cases) -> Table:
    """What was measured beside each mark."""
    table = Table("case", "mlpkit beside", "measured", "mark", "")
    for case, beside, value, mark in marks(cases):
        if value is None:
            table.add_row(case, beside, "", f"{mark:g}", "not measured")
        else:
            table.add_row(
                case, beside, f"{value:.2f}", f"{mark:g}", "ok" if value >= mark else "short"
            )
    return table


def beyond(content: dict[str, Any]) -> list[str]:
    """What was found to be beyond its limit: such a contender's rate means nothing."""
    return [
        f"{part}: {what}: {found['error']:g}, beyond {found['limit']:g}"
        for part, all_found in content.items()
        for what, found in all_found.items()
        if isinstance(found, dict) and found.get("within") is False
    ]


def bars(cases: Cases) -> list[dict[str, Any]]:
    """The rows of the chart."""
    return [
        {"contender": name, "workload": work, "optimizer": rule, **f}
        for (work, rule), figures in cases.items()
        for name, f in figures.items()
        if "rounds" in f
    ]


def main() -> None:
    """Print the tables, draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    try:
        content = json.loads(path.read_text())
        cases = measured(content)
    except (OSError, ValueError) as error:
        sys.exit(f"{path} is no file of bench/gpu.py's: {error}")
    except AttributeError:  # something in it isn't an object
        sys.exit(f"{path} is no file of bench/gpu.py's")
    if not cases:
        sys.exit(f"{path} has no rates yet: bench/gpu.py rates, torch and jax write them")
    console = Console(width=110)
    for workload in dict.fromkeys(work for work, _ in cases):
        console.print(rates_table(cases, workload))
    console.print(marks_table(cases))
    for line in beyond(content):
        print(line)
    title = f"{content.get('device', {}).get('device', path.stem)}, float32"
    chart = path.with_suffix(".png")
    save(benchmark.bar_figure(bars(cases), title, "contender"), chart)
    print(chart)


if __name__ == "__main__":
    main()
