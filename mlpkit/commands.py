"""The commands. Each imports what it needs, so that help and errors come at once."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, cli_check, cli_grading, cli_report, cli_train
from .checks import check_positive
from .cli_train import DATA_HELP, BackendOption, DataOption, ThreadsOption
from .recipes import OPTIMIZERS, check_dtype

app = typer.Typer(
    name="mlpkit",
    help="Multilayer perceptrons from scratch: one seed, one result, on every backend.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Get, check and look at the data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def show_version(asked: bool) -> None:
    """--version."""
    if asked:
        print(f"mlpkit {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Multilayer perceptrons from scratch: one seed, one result, on every backend."""


app.command()(cli_train.train)


@app.command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    data: Annotated[str | None, typer.Option(help=f"{DATA_HELP} Default: the run's own.")] = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Score a run's best weights on validation and test images."""
    from mlpkit_backends.threads import use_threads

    use_threads(threads)
    from .scoring import evaluate_run

    folder = None
    if data is not None:
        from .progress import making_data

        folder = making_data(data)
    dataset, scores, same = evaluate_run(run, folder, backend)
    print(f"{run} on {dataset.folder}{'' if same else ', other data than it was trained with'}")
    for split, (loss, accuracy) in scores.items():
        images = len(getattr(dataset, split))
        print(f"{split:4}  {images:6} images  accuracy {accuracy:.2%}  loss {loss:.4f}")


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="One run, or several to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(help="PNG, PDF or SVG. Default: curves.png in the run, or comparison.png."),
    ] = None,
) -> None:
    """Plot a run's curves, or compare several runs."""
    from .plotting import plot_runs

    target = out or (runs[0] / "curves.png" if len(runs) == 1 else Path("comparison.png"))
    plot_runs(runs, target)
    print(target)


@app.command()
def activations(
    out: Annotated[Path, typer.Option(help="PNG, PDF or SVG.")] = Path("activations.png"),
) -> None:
    """Plot the six activation functions."""
    from .plotting import activations_figure, save

    save(activations_figure(), out)
    print(out)


app.command()(cli_report.report)
app.command()(cli_report.compare)
app.command()(cli_report.verify_report)


@app.command()
def bench(
    backend: Annotated[
        str,
        typer.Option(
            help="all (that run here), cupy, numba, numpy, or auto, which takes the first.",
            envvar="MLPKIT_BACKEND",
        ),
    ] = "all",
    workload: Annotated[str | None, typer.Option(help="tinynet or fcn. Default: both.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}. Default: all four.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Default: 64 for tinynet, 32 for fcn.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    seconds: Annotated[float, typer.Option(help="For each case, in five turns.")] = 5.0,
    threads: ThreadsOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them here: PNG, PDF or SVG.")] = None,
) -> None:
    """Iterations per second of whole training steps."""
    from mlpkit_backends.threads import use_threads

    use_threads(threads)
    from . import benchmark
    from .plotting import check_target, save
    from .progress import counting, print_rates
    from .run_files import check_places, write_json

    check_dtype(dtype)
    check_positive(**{"--seconds": seconds})
    chosen = benchmark.cases(backend, workload, optimizer, batch_size, dtype)
    if plot is not None:
        check_target(plot)
    check_places([json, plot])
    data = benchmark.random_images()
    machine = benchmark.machine({case.backend for case in chosen}) | {"seconds": seconds}
    results: list[dict[str, Any]] = []
    with counting("cases") as progress:
        for _, group in groupby(chosen, lambda case: (case.workload, case.optimizer)):
            progress(len(results), len(chosen))
            results += benchmark.measure(list(group), data, seconds)
    print_rates(benchmark.title(machine), results)
    if json is not None:
        write_json(json, {**machine, "results": results})
    if plot is not None:
        save(benchmark.bar_figure(results, benchmark.title(machine, dtype)), plot)


@app.command()
def doctor() -> None:
    """What this machine offers, and what is missing."""
    from .doctor import examine

    lines, well = examine()
    print("\n".join(lines))
    if not well:
        raise typer.Exit(2)


app.command()(cli_grading.grade)
app.command()(cli_check.check)


@data_app.command()
def fetch() -> None:
    """Download SVHN (235 MiB) into data/.

    SVHN is for non-commercial use only.
    """
    from . import svhn
    from .sources import data_root

    print("SVHN (Netzer et al. 2011) is for non-commercial use only.")
    svhn.fetch(data_root())
    print(f"{data_root()}/ holds SVHN, hashes checked.")


@data_app.command()
def verify() -> None:
    """Check SVHN's files in data/ against the published hashes."""
    from . import svhn
    from .sources import data_root

    states = svhn.verify(data_root())
    for name, state in states.items():
        print(f"{name}: {state}")
    if any(state != "ok" for state in states.values()):
        raise typer.Exit(2)


@data_app.command()
def info(
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The picture of samples. Default: samples.png in the folder."),
    ] = None,
) -> None:
    """Shapes, class counts, and a picture of samples."""
    from .datasets import load_dataset
    from .plotting import check_target, samples_figure, save
    from .progress import class_table, making_data

    if out is not None:
        check_target(out)
    dataset = load_dataset(making_data(data))
    class_table(dataset)
    target = out or dataset.folder / "samples.png"
    save(samples_figure(dataset), target)
    print(target)


@data_app.command()
def make(
    out: Annotated[Path | None, typer.Option(help="The folder. Default: data/synthetic.")] = None,
    train_size: Annotated[int, typer.Option(help="Images in the training file.")] = 73257,
    test_size: Annotated[int, typer.Option(help="Images in the test file.")] = 26032,
    seed: Annotated[int, typer.Option(help="The same bytes for the same seed.")] = 0,
) -> None:
    """Make the offline stand-in: rendered digits in SVHN's layout."""
    from . import synthetic
    from .progress import counting
    from .sources import has_data, synthetic_folder

    folder = out or synthetic_folder()
    if out is not None and has_data(out):
        raise ValueError(f"{out} holds data already: name another folder with --out, or remove it")
    with counting("images") as progress:
        synthetic.make(folder, train_size, test_size, seed, progress=progress)
    print(f"{folder}/ holds {train_size} training and {test_size} test images.")
