"""The report: the four items of the course notebook's first problem, as a PDF of vector plots.

1. the tinynet recipe's curves; 2. SGD against SGDM; 3. all four optimizers; 4. the six activations.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends import backend_pdf
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .files import atomic
from .plotting import activations_figure, comparison_figure, curve_figure, title_of
from .report_runs import ITEMS, ReportRun, digests, gather
from .run_files import check_place

REPORT = "problem_1_solution.pdf"
MARK = "mlpkit report"  # how the keywords of a report's document information begin
PAGE = (8.5, 11.0)  # letter, upright, in inches
MARGIN = 0.5  # on every side
CAPTION_SIZE, CAPTION_PITCH = 9, 15  # points; characters an inch


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write the report of the runs, one of each recipe, whole or not at all.

    The same runs give the same bytes. The keywords of its document information hold the digest of
    each run's curves. Raises RunError where a run is missing or can't be used, ValueError for a
    target that can't be written.
    """
    if out.suffix.lower() != ".pdf":
        raise ValueError(f"the report is a PDF; {out} should end in .pdf: rename it")
    check_place(out)
    runs = gather(folders)
    pdf: Any = backend_pdf  # matplotlib leaves it untyped
    information = {
        "Title": "Problem 1: a network trained, optimizers compared, activations",
        "Keywords": "; ".join((MARK, *(f"{k} {v}" for k, v in digests(runs).items()))),
        "CreationDate": None,
    }
    # Every point of the history is to be in the file.
    with (
        rc_context({"path.simplify": False}),
        atomic(out) as temporary,
        pdf.PdfPages(temporary, metadata=information) as pages,
    ):
        for figure in figures(runs):
            pages.savefig(figure, bbox_inches=page_of(figure))


def figures(runs: dict[str, ReportRun]) -> Iterable[Figure]:
    """The four pages."""
    for number, (title, recipes) in enumerate(ITEMS.items(), start=1):
        chosen = [runs[recipe] for recipe in recipes]
        if len(chosen) == 1:
            figure = curve_figure(chosen[0].history, title_of(chosen[0].folder), upright=True)
        else:
            figure = comparison_figure([(title_of(run.folder), run.history) for run in chosen])
        captions = [run.caption() for run in chosen]
        lay_out(figure, [f"{number}. {title}.", *captions, chosen[0].data_caption()])
        yield figure
    figure = activations_figure(aspect=1.5)
    caption = (
        "Sigmoid, leaky ReLU, ReLU, ELU, SELU (alpha 1.6732, scale 1.0507) and tanh on [-10, 10], "
        "computed by the numpy backend; no recipe, seed, data or accuracy has a part in them."
    )
    lay_out(figure, [f"{len(ITEMS) + 1}. Activations.", caption])
    yield figure


def lay_out(figure: Figure, caption: list[str]) -> None:
    """Give a figure the size of a page within its margins, and the caption's paragraphs below its
    panels."""
    width, height = (side - 2 * MARGIN for side in PAGE)
    figure.set_size_inches(width, height)
    text = "\n".join(textwrap.fill(line, int(width * CAPTION_PITCH)) for line in caption)
    figure.supxlabel(text, x=0, ha="left", fontsize=CAPTION_SIZE, parse_math=False)
    # Now, while the figure's edge is where its legend belongs, which on the page is the page's.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)


def page_of(figure: Figure) -> Bbox:
    """The figure with the page's margins around it, in inches."""
    width, height = figure.get_size_inches()
    return Bbox([[-MARGIN, -MARGIN], [width + MARGIN, height + MARGIN]])
