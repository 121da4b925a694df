"""`mlpkit train`: options into settings, and a run begun or resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .recipes import DEFAULT_RECIPE, OPTIMIZERS, RECIPES, count_epochs

BackendOption = Annotated[
    str | None,
    typer.Option(help="cupy, numba, numpy or auto: the first of these that runs here."),
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Of a CPU backend. Default: the processors at hand.")
]
DATA_HELP = "A folder with SVHN's two files, svhn (data/), or synthetic (the offline stand-in)."
DataOption = Annotated[
    str | None, typer.Option(help=f"{DATA_HELP} Default: svhn where it is, else synthetic.")
]


def train(
    run: Annotated[
        Path | None, typer.Argument(help="With --resume: the folder of the run to resume.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(RECIPES)}; the options below change its parts. "
            f"Default: {DEFAULT_RECIPE}."
        ),
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="tinynet, fcn, or an MLP's hidden widths, as in 512,256.")
    ] = None,
    keep_prob: Annotated[
        float | None,
        typer.Option(
            help="Dropout in an MLP by widths: the probability to keep. 0, the default: no dropout."
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate. Default: the optimizer's recipe's.")
    ] = None,
    lr_decay: Annotated[
        float | None, typer.Option(help="Multiplies the learning rate now and then.")
    ] = None,
    lr_decay_every: Annotated[
        int | None, typer.Option(help="After so many epochs. Default beside --lr-decay: 1.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in an iteration.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop once so many epochs have not raised the validation accuracy. Default: never."
        ),
    ] = None,
    min_delta: Annotated[
        float | None,
        typer.Option(
            help="By how much it has to rise to count: 0.01 is a percentage point. Default: 0."
        ),
    ] = None,
    data: DataOption = None,
    train_size: Annotated[
        int | None, typer.Option(help="Only the first so many training images.")
    ] = None,
    val_size: Annotated[
        int | None, typer.Option(help="Images split off the training file's end.")
    ] = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64. Default: float32.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides weights, batch order and dropout. Default: 123."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run's folder. Default: runs/RECIPE, or runs/NET-OPTIMIZER where these are "
            "given; with -2, -3, ... after it where that exists."
        ),
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            help="Save what it takes to go on: every 500 iterations, every 30s, 10m or 2h, or "
            "every epoch. Default: epoch."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume RUN, or --out, which starts where there is nothing yet. Its options come "
            "from the run; --epochs may be raised, and --patience given anew.",
        ),
    ] = False,
) -> None:
    """Train a network into a run folder, or resume a run.

    The folder holds config.json, history.csv, best.safetensors, last.safetensors, summary.json and
    curves.png.
    """
    from mlpkit_backends.threads import use_threads

    folder = check_folder(run, out, resume)
    config = config_to_resume(folder) if resume and folder is not None else None
    if config is not None and threads is None:
        threads = threads_asked(config)
    use_threads(threads)
    from .output import tell
    from .progress import TrainingDisplay, making_data
    from .recording import EVERY_EPOCH, Every
    from .resume import has_checkpoint
    from .run_files import RUN_FILES, run_data
    from .runs import train_run
    from .train_options import finished, new_settings, resumed_settings

    options = {
        "recipe": recipe,
        "net": net and net.replace(" ", ""),
        "optimizer": optimizer,
        "lr": lr,
        "lr_decay": lr_decay,
        "lr_decay_every": lr_decay_every,
        "batch_size": batch_size,
        "epochs": epochs,
        "keep_prob": keep_prob,
        "train_size": train_size,
        "val_size": val_size,
        "dtype": dtype,
        "seed": seed,
        "patience": patience,
        "min_delta": min_delta,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    asked = None if checkpoint_every is None else Every.parse(checkpoint_every)
    with blaming(folder, config):
        if config is not None and folder is not None:
            settings = replace(resumed_settings(folder, config, given, backend), threads=threads)
            if summary := finished(folder, settings, config):
                longer = "a higher --patience" if summary["stopped"] else "--epochs"
                more = f"; {longer} trains it longer" if has_checkpoint(folder) else ""
                print(f"{folder} is finished{more}. {results(summary)}")
                return
            asked = asked or Every.parse(str(config.get("checkpoint_every", EVERY_EPOCH)))
            find = (lambda: making_data(data)) if data else (lambda: run_data(config))
        elif run is not None:
            raise ValueError(
                f"there is no run in {run} to resume: a new one is started with --out {run}"
            )
        else:
            settings = replace(new_settings(given, backend), threads=threads)
            find = lambda: making_data(data)  # noqa: E731
        every = asked or EVERY_EPOCH
        trained = train_run(
            settings, find, folder, TrainingDisplay, every=every, resume=resume, say=tell
        )
    summary = trained.summary
    rate = summary["iterations_per_second"]
    print(
        f"{results(summary)}; {f'{rate:.0f} iterations/s, ' if rate else ''}"
        f"{summary['seconds']:.0f} s with evaluation.\n"
        f"In {trained.folder}/: "
        f"{', '.join(name for name in RUN_FILES if (trained.folder / name).is_file())}"
    )


@contextmanager
def blaming(folder: Path | None, config: dict[str, Any] | None) -> Iterator[None]:
    """Of a run that is resumed, what a setting can't be is said with where it comes from."""
    try:
        yield
    except ValueError as error:
        if config is not None and type(error) is ValueError:  # not of a run, data or weights
            error.add_note(f"settings that no option gave are from {folder}/config.json")
        raise


def results(summary: dict[str, Any]) -> str:
    """A summary's accuracies in words, and why it ended early where it did."""
    early = f"Ended after {count_epochs(summary['epochs'])}, as {summary['stopped']}. "
    best, validation = summary["best_epoch"], summary["val_accuracy"]
    return (
        f"{early if summary['stopped'] else ''}Best epoch {best}: validation accuracy "
        f"{validation:.1%}, test accuracy {summary['test_accuracy']:.1%}"
    )


def check_folder(run: Path | None, out: Path | None, resume: bool) -> Path | None:
    """The run's folder where one is named. ValueError where it is named twice, or in the wrong way
    for what is asked."""
    if run is not None and not resume:
        raise ValueError(f"{run} is not for a new run: resume it with --resume, or name --out")
    if run is not None and out is not None and run != out:
        raise ValueError(f"--resume {run} and --out {out} name two runs: leave one out")
    if resume and run is None and out is None:
        raise ValueError("--resume takes a run's folder: --resume RUN, or --out RUN --resume")
    if run is not None and run.is_file():
        raise ValueError(f"{run} is a file: --resume takes the run's folder, {run.parent}")
    return run or out


def config_to_resume(folder: Path) -> dict[str, Any] | None:
    """The configuration of the run that has begun in the folder; None where none has."""
    from .resume import is_run, read_run_config

    return read_run_config(folder) if is_run(folder) else None


def threads_asked(config: dict[str, Any]) -> int | None:
    """The threads that a run was started with by --threads, or as many as there are here; those
    that it had, where its config.json, which knows what was asked for, is lost."""
    asked = config.get("threads_asked", config.get("threads"))
    return min(asked, os.cpu_count() or 1) if isinstance(asked, int) and asked > 0 else None
