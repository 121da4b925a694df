"""`mlpkit grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def grade(
    submissions: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders, .zip or .py files. Default: mlpkit itself."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights to score, .safetensors or .npz.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The data for --weights, a folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Gradescope's results.json.")] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A report in Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A row for each submission.")] = None,
    rubric: Annotated[
        Path | None, typer.Option(help="JSON: points by section, for those that differ.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each task.")] = 120.0,
    memory: Annotated[int, typer.Option(help="MB of memory for each process.")] = 600,
    backend: Annotated[
        str | None, typer.Option(help="Of mlpkit itself: cupy, numba, numpy or auto.")
    ] = None,
    starter: Annotated[
        Path | None, typer.Option(help="Write the assignment's skeleton here, and grade nothing.")
    ] = None,
) -> None:
    """Grade submissions of the assignment, or mlpkit itself.

    Exit status: 0 for full marks, 1 for points lost, 2 where it could not grade.
    """
    from dataclasses import replace

    from .grading import outputs
    from .grading.grading import grade as grade_with
    from .grading.interface import Grade
    from .grading.local import reference
    from .grading.packing import SubmissionError
    from .grading.rubric import reweigh
    from .grading.sandbox import SandboxRunner
    from .grading.sections import SECTIONS
    from .grading.starter import write_starter
    from .grading.weights import SECTION, score_weights
    from .run_files import check_place

    if starter is not None:
        write_starter(starter)
        print(f"{starter}/lib holds the assignment's skeleton: write each body, then grade it")
        return
    if not (timeout > 0 and timeout < 86400) or memory < 64:
        raise ValueError(
            f"a timeout above 0 s, up to a day, and 64 MB or more are expected; got {timeout:g} s "
            f"and {memory} MB"
        )
    places = {"out": out, "junit": junit, "markdown": markdown, "csv": csv}
    for place in places.values():
        if place is not None:
            check_place(place)
    if submissions and backend is not None:
        raise ValueError("--backend is for mlpkit itself: a submission runs on NumPy; leave it out")
    sections = SECTIONS if rubric is None else reweigh(SECTIONS, rubric)
    if (weights is None) != (data is None):
        raise ValueError("--weights and --data go together: give both or neither")
    grades, scored = [], None
    if weights is not None and data is not None:
        points = next(section.points for section in sections if section.name == SECTION)
        scored = score_weights(weights, data, points)
        sections = tuple(section for section in sections if section.name != SECTION)
    if scored is not None and not submissions:
        grades.append(Grade(weights.name if weights else "", (scored,)))
    elif not submissions:
        grades.append(grade_with(reference(backend), sections, "mlpkit"))
    refused = []
    for path in submissions or []:
        try:
            with SandboxRunner(path, timeout, memory) as runner:
                grades.append(grade_with(runner, sections, path.name))
        except (SubmissionError, OSError) as error:
            refused.append(f"{path.name} could not be graded: {error}")
    if scored is not None and submissions:
        grades = [replace(each, sections=(*each.sections, scored)) for each in grades]
    for each in grades:
        outputs.show(each)
    if grades:
        outputs.write(grades, places)
    if refused:
        raise ValueError("; ".join(refused))
    statuses = [section.status for each in grades for section in each.sections]
    if "error" in statuses:
        raise typer.Exit(2)
    if any(status != "passed" for status in statuses):
        raise typer.Exit(1)
