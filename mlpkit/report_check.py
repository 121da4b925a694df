"""Whether a report's curves are those of its runs: by their digests, and by what is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .pdf_curves import PRINTED, Drawn, PdfError, Points, deviation, read_pdf
from .plotting import activation_points
from .report import MARK
from .report_runs import CURVES, ITEMS, ReportRun, digests, gather

# Rounding is half of what is printed; the fitted scale and offset add as much at most.
TOLERANCE = 2 * PRINTED


@dataclass(frozen=True)
class Curve:
    """A curve that a page should show: its name for a person, and its points."""

    name: str
    points: Points


@dataclass(frozen=True)
class Page:
    """What a page should show: the curves of each panel, and lines in its legend."""

    panels: list[list[Curve]]
    handles: int


def verify_report(file: Path, folders: Sequence[Path]) -> list[str]:
    """What differs between a report and its runs, a sentence each; nothing where all agrees.

    Each curve's digest in the PDF is compared with that of history.csv; and each line drawn on the
    pages with the points of history.csv, in number and shape, to the precision that the PDF is
    printed with. Shape: up to a scale and an offset of each axis, the same ones for all curves of a
    panel. Raises PdfError, RunError, OSError.
    """
    document = read_pdf(file)
    mark, *entries = document.information.get("Keywords", "").split("; ")
    if mark != MARK:
        raise PdfError(
            f"{file} is a PDF, but no report: it has no digests of curves; `mlpkit report` writes "
            "them"
        )
    runs = gather(folders)
    carried = dict(entry.partition(" ")[::2] for entry in entries)
    own = digests(runs)
    changed = [
        name_of(run, column)
        for recipe, run in runs.items()
        for column in CURVES
        if carried.get(f"{recipe}.{column}") != own[f"{recipe}.{column}"]
    ]
    differences = [
        f"{name}: history.csv has other points than the PDF's digest" for name in changed
    ]
    pages = expected_pages(runs)
    if len(document.pages) != len(pages):
        return [*differences, f"the PDF has {len(document.pages)} pages; a report has {len(pages)}"]
    for number, (page, drawn) in enumerate(zip(pages, document.pages, strict=True), start=1):
        differences += (f"page {number}: {line}" for line in compare_page(page, drawn, changed))
    return differences


def name_of(run: ReportRun, column: str) -> str:
    """A run's curve, for a person."""
    return f"{run.recipe}'s {CURVES[column]} ({run.folder})"


def expected_pages(runs: dict[str, ReportRun]) -> list[Page]:
    """What the runs' report shows, in the order of its drawing."""
    pages = []
    for recipes in ITEMS.values():
        loss, train, val = (
            [Curve(name_of(runs[r], column), runs[r].curves()[column]) for r in recipes]
            for column in CURVES
        )
        panels = [loss, train, val] if len(recipes) > 1 else [loss, train + val]
        pages.append(Page(panels, handles=max(2, len(recipes))))
    activations = activation_points().items()
    return [*pages, Page([[Curve(title, points)] for title, points in activations], handles=0)]


def compare_page(page: Page, drawn: list[Drawn], changed: Sequence[str]) -> Iterable[str]:
    """What differs on a page, a sentence each. changed: the curves whose digests differ."""
    curves = [curve for panel in page.panels for curve in panel]
    if len(drawn) != len(curves) + page.handles:
        yield (
            f"{len(drawn)} coloured lines are drawn; there should be {len(curves)} curves and "
            f"{page.handles} lines of a legend"
        )
        return
    left = iter(drawn)
    for panel in page.panels:
        lines = [next(left) for _ in panel]
        wrong = [
            f"{curve.name} is drawn otherwise than history.csv has it"
            for curve, line in zip(panel, lines, strict=True)
            if not matches(curve.points, line)
        ]
        yield from wrong
        together = [point for curve in panel for point in curve.points]
        places = [point for line in lines for point in line.points]
        if not wrong and deviation(together, places) > TOLERANCE:
            # A change that the curve's own scale and offset take up shows beside the others alone.
            names = [curve.name for curve in panel]
            guilty = [name for name in names if name in changed]
            yield from (f"{name} is drawn otherwise than history.csv has it" for name in guilty)
            if not guilty:
                yield f"{' and '.join(names)} are not drawn on one scale"


def matches(points: Points, line: Drawn) -> bool:
    """Whether a line, and the markers on it, are drawn as the points say."""
    if deviation(points, line.points) > TOLERANCE:
        return False
    if not line.markers:
        return True
    both = [*line.points, *line.markers]
    return deviation([*points, *points], both) <= TOLERANCE
