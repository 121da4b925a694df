"""The commands of the report: `mlpkit report`, `mlpkit compare` and `mlpkit verify-report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_train import BackendOption, DataOption
from .recipes import RECIPES
from .signals import Stopped

RunsArgument = Annotated[
    list[Path], typer.Argument(help=f"A run of each recipe: {', '.join(RECIPES)}.")
]


def report(
    runs: RunsArgument,
    pdf: Annotated[Path, typer.Option("--pdf", "--out", help="The file to write.")] = Path(
        "problem_1_solution.pdf"
    ),
) -> None:
    """Write the four-item report of five runs."""
    from .report import write_report

    write_report(runs, pdf)
    print(pdf)


def verify_report(
    file: Annotated[Path, typer.Argument(help="A PDF that `mlpkit report` wrote.")],
    runs: RunsArgument,
) -> None:
    """Check that a report's curves are those of its runs.

    Exit status 0: they are; 1: a curve differs; 2: the PDF or a run can't be read.
    """
    from .report_check import verify_report

    differences = verify_report(file, runs)
    for line in differences:
        print(line)
    if differences:
        raise typer.Exit(1)
    print(f"{file}: every curve is that of its run, in number and shape, and by its digest.")


def compare(
    epochs: Annotated[
        int | None, typer.Option(help="Of every recipe. Default: each one's own.")
    ] = None,
    data: DataOption = None,
    train_size: Annotated[
        int | None, typer.Option(help="Only the first so many training images.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at a time, which share the processors.")] = 1,
    out: Annotated[Path, typer.Option(help="The folder of the runs and the report.")] = Path(
        "runs/compare"
    ),
    backend: BackendOption = None,
    seed: Annotated[int, typer.Option(help="Of every run.")] = 123,
) -> None:
    """Train the five recipes and write their report.

    Runs that are in the folder already, with the same settings, are used again, and those that
    were stopped resumed.
    """
    from .checks import check_counts
    from .compare import Comparison, train_all
    from .progress import RecipesDisplay, making_data
    from .report import REPORT, write_report
    from .run_files import check_place

    counts = {"--epochs": epochs, "--train-size": train_size, "--jobs": jobs}
    check_counts(**{option: count for option, count in counts.items() if count is not None})
    if out.is_dir():  # said now, not after the trainings
        check_place(out / REPORT)
    comparison = Comparison(making_data(data), out, epochs, train_size, backend, seed)
    missing = comparison.missing()
    with RecipesDisplay() as display:
        for name in RECIPES:
            if name in missing:
                display.wait_for(name, comparison.recipe(name).epochs)
            else:
                display.say(f"{name:8}  in {out / name} already")
        try:
            train_all(comparison, missing, jobs, display.epoch)
        except Stopped as stopped:
            stopped.add_note("the same command resumes what was stopped")
            raise
    write_report([out / name for name in RECIPES], out / REPORT)
    print(out / REPORT)
