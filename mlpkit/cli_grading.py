"""`mlpkit grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .grading import LEAST_MEMORY, MEMORY, TIMEOUT, TOTAL

DAY = 86400  # seconds
MOST_MEMORY = 1 << 20  # MB


def grade(
    submissions: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders, .zip or .py files. Default: mlpkit itself."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights to score, .safetensors or .npz.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The data for --weights, a folder.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Gradescope's results.json, of one submission.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A report in Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A row for each submission.")] = None,
    rubric: Annotated[
        Path | None, typer.Option(help="JSON: points by section, for those that differ.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each task.")] = TIMEOUT,
    total: Annotated[float, typer.Option(help="Seconds for all tasks of a submission.")] = TOTAL,
    memory: Annotated[
        int, typer.Option(help=f"MB of memory for each process, {LEAST_MEMORY} or more.")
    ] = MEMORY,
    backend: Annotated[
        str | None, typer.Option(help="Of mlpkit itself: cupy, numba, numpy or auto.")
    ] = None,
    starter: Annotated[
        Path | None, typer.Option(help="Write the assignment's skeleton here, and grade nothing.")
    ] = None,
) -> None:
    """Grade submissions of the assignment, or mlpkit itself.

    Each is written down as soon as it is graded. Exit status: 0 for full marks, 1 for points lost,
    2 where one could not be graded.
    """
    from dataclasses import replace

    from .grading import outputs
    from .grading.batch import grade_submission, short_names
    from .grading.grading import grade as grade_with
    from .grading.interface import Grade
    from .grading.local import reference
    from .grading.rubric import reweigh
    from .grading.sections import SECTIONS
    from .grading.starter import write_starter
    from .grading.weights import SECTION, score_weights
    from .run_files import check_places

    if starter is not None:
        write_starter(starter)
        print(f"{starter}/lib holds the assignment's skeleton: write each body, then grade it")
        return
    check_limits(timeout, total, memory)
    places = {"out": out, "junit": junit, "markdown": markdown, "csv": csv}
    check_places(places.values(), [*(submissions or []), weights, rubric])
    if submissions and backend is not None:
        raise ValueError("--backend is for mlpkit itself: a submission runs on NumPy; leave it out")
    named = short_names(submissions or [])
    if len(named) > 1:
        check_alone(len(named), out, weights)
    if (weights is None) != (data is None):
        raise ValueError("--weights and --data go together: give both or neither")
    sections = SECTIONS if rubric is None else reweigh(SECTIONS, rubric)
    scored = []
    if weights is not None and data is not None:
        points = next(section.points for section in sections if section.name == SECTION)
        scored.append(score_weights(weights, data, points))
        sections = tuple(section for section in sections if section.name != SECTION)
    grades: list[Grade] = []

    def keep(result: Grade) -> None:
        grades.append(replace(result, sections=(*result.sections, *scored)))
        outputs.show(grades[-1])
        outputs.write(grades, places)

    if scored and weights and not named:
        keep(Grade(weights.name, ()))
    elif not named:
        keep(grade_with(reference(backend), sections, "mlpkit"))
    for name, path in named.items():
        keep(grade_submission(path, name, sections, timeout, memory, total))
    if len(grades) > 1:
        outputs.show_all(grades)
    refused = [outputs.summary(each) for each in grades if each.error]
    for line in refused:  # each on its own, as they may be many
        typer.echo(f"mlpkit: {' '.join(line.split())}", err=True)
    if refused:
        raise typer.Exit(2)
    if any(section.status != "passed" for each in grades for section in each.sections):
        raise typer.Exit(1)


def check_limits(timeout: float, total: float, memory: int) -> None:
    """ValueError for limits that no grading could have."""
    for option, seconds in (("timeout", timeout), ("total", total)):
        if not 0 < seconds <= DAY:
            raise ValueError(
                f"--{option} should be above 0 s and at most a day, {DAY} s; got {seconds:g}"
            )
    if not LEAST_MEMORY <= memory <= MOST_MEMORY:
        raise ValueError(
            f"--memory should be from {LEAST_MEMORY} MB, which a right solution takes, to "
            f"{MOST_MEMORY}; got {memory}"
        )


def check_alone(count: int, out: Path | None, weights: Path | None) -> None:
    """ValueError where one of so many submissions is meant."""
    if out is not None:
        raise ValueError(
            f"--out writes Gradescope's file, which is of one submission; got {count}: grade them "
            "one by one, or use --csv, --markdown or --junit"
        )
    if weights is not None:
        raise ValueError(
            f"--weights are those of one submission; got {count}: grade them one by one"
        )
