"""`mlpkit train`: options into settings, and a run begun or gone on with."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .recipes import DEFAULT_RECIPE, RECIPES, Recipe, find_recipe

if TYPE_CHECKING:
    from .runs import Settings

BackendOption = Annotated[
    str | None,
    typer.Option(help="cupy, numba, numpy or auto: the first of these that runs here."),
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Of a CPU backend. Default: the processors at hand.")
]
DATA_HELP = "A folder with SVHN's two files, svhn (data/), or synthetic (the offline stand-in)."


def train(
    run: Annotated[
        Path | None, typer.Argument(help="With --resume: the folder of the run to go on with.")
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
            help="Dropout in an MLP by widths: the probability to keep. Default: 0, none."
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, sgdm, rmsprop or adam.")] = None,
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
        typer.Option(help="By how much it has to rise to count for --patience. Default: 0."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"{DATA_HELP} Default: svhn where it is, else synthetic.")
    ] = None,
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
            help="Save what it takes to go on: every 500 iterations, every 30s, or every epoch. "
            "Default: epoch."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with RUN, or with --out, which starts where there is nothing yet. Its "
            "options come from the run; --epochs may be raised.",
        ),
    ] = False,
) -> None:
    """Train a network into a run folder, or go on with a run.

    The folder holds config.json, history.csv, best.safetensors, last.safetensors, summary.json and
    curves.png.
    """
    from mlpkit_backends.threads import use_threads

    use_threads(threads)
    from .progress import TrainingDisplay, making_data
    from .recording import EVERY_EPOCH, Every
    from .resume import CONFIG_ALONE, is_run, read_run_config
    from .run_files import run_data
    from .runs import train_run

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
    folder = check_folder(run, out, resume)
    if resume and folder is not None and is_run(folder):
        config = read_run_config(folder)
        settings = resumed_settings(folder, config, given, backend)
        if summary := finished(folder, settings):
            longer = "" if summary["stopped"] else "; --epochs trains it longer"
            print(f"{folder} is finished{longer}. {results(summary)}")
            return
        checkpoint_every = checkpoint_every or str(config.get(CONFIG_ALONE, EVERY_EPOCH))
        find = (lambda: making_data(data)) if data else (lambda: run_data(config))
    elif run is not None:
        raise ValueError(
            f"there is no run in {run} to go on with: a new one is started with --out {run}"
        )
    else:
        settings = new_settings(given, backend)
        find = lambda: making_data(data)  # noqa: E731
    every = Every.parse(checkpoint_every) if checkpoint_every else EVERY_EPOCH
    trained = train_run(settings, find, folder, TrainingDisplay, every=every, resume=resume)
    summary = trained.summary
    rate = summary["iterations_per_second"]
    print(
        f"{results(summary)}; {f'{rate:.0f} iterations/s, ' if rate else ''}"
        f"{summary['seconds']:.0f} s with evaluation.\n"
        f"In {trained.folder}/: "
        f"{', '.join(name for name in FILES if (trained.folder / name).is_file())}"
    )


FILES = (
    "config.json", "history.csv", "best.safetensors", "last.safetensors", "last.1.safetensors",
    "summary.json", "curves.png",
)  # fmt: skip


def results(summary: dict[str, Any]) -> str:
    """A summary's accuracies in words, and why it ended early where it did."""
    early = f"Ended after {summary['epochs']} epochs, as {summary['stopped']}. "
    best, validation = summary["best_epoch"], summary["val_accuracy"]
    return (
        f"{early if summary['stopped'] else ''}Best epoch {best}: validation accuracy "
        f"{validation:.1%}, test accuracy {summary['test_accuracy']:.1%}"
    )


def check_folder(run: Path | None, out: Path | None, resume: bool) -> Path | None:
    """The run's folder where one is named. ValueError where it is named twice, or in the wrong way
    for what is asked."""
    if run is not None and not resume:
        raise ValueError(f"{run} is not for a new run: go on with it by --resume, or name --out")
    if run is not None and out is not None and run != out:
        raise ValueError(f"--resume {run} and --out {out} name two runs: leave one out")
    if resume and run is None and out is None:
        raise ValueError("--resume takes a run's folder: --resume RUN, or --out RUN --resume")
    return run or out


def new_settings(given: dict[str, Any], backend: str | None) -> Settings:
    """The settings of a new run from the options given."""
    from .runs import Settings

    rest = dict(given)
    base_name = rest.pop("recipe", DEFAULT_RECIPE)
    if "lr_decay" in rest:
        rest.setdefault("lr_decay_every", 1)
    base, optimizer = find_recipe(base_name), rest.get("optimizer")
    if optimizer in RECIPES and optimizer != base.optimizer:
        base = replace(base, lr=RECIPES[optimizer].lr)
    parts = {f.name for f in fields(Recipe)} - {"train_size"}
    recipe = replace(base, **{key: rest.pop(key) for key in parts & rest.keys()})
    # Another network or optimizer is no longer the recipe that a name promises.
    changed = {"net", "optimizer"} & given.keys()
    name = f"{recipe.net}-{recipe.optimizer}" if changed else base_name
    return Settings(name, recipe, backend=backend, base=base_name, **rest)


# What a run's settings come from in its configuration, beyond what every command reads.
SETTINGS_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "recipe": (str, type(None)),
    "batch_size": (int,),
    "epochs": (int,),
    "lr_decay": (float, int),
    "lr_decay_every": (int,),
    "train_size": (int,),
    "seed": (int,),
    "patience": (int, type(None)),
    "min_delta": (float, int),
    "backend": (str,),
}


def resumed_settings(
    folder: Path, config: dict[str, Any], given: dict[str, Any], backend: str | None
) -> Settings:
    """The settings of a run to go on with. RunError where an option given contradicts them, but for
    more epochs, and the backend."""
    from .run_files import RunError, check_types
    from .runs import Settings

    check_types(config, SETTINGS_TYPES, folder / "config.json")
    for key, value in given.items():
        option = f"--{key.replace('_', '-')}"
        if key == "epochs" and value < config["epochs"]:
            raise RunError(
                f"{folder} has {option} {config['epochs']}, which can only be raised; got {value}"
            )
        if key != "epochs" and value != config.get(key):
            raise RunError(
                f"{folder} was started with {option} {config.get(key)}; got {value}: leave "
                f"{option} out to go on with it, or name another folder for a new run"
            )
    recipe = Recipe(**{f.name: config[f.name] for f in fields(Recipe)})
    return Settings(
        config["name"],
        replace(recipe, epochs=given.get("epochs", recipe.epochs)),
        backend=backend or config["backend"],
        base=config["recipe"],
        **{key: config[key] for key in RESUMED},
    )


RESUMED = ("keep_prob", "train_size", "val_size", "dtype", "seed", "patience", "min_delta")


def finished(folder: Path, settings: Settings) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to train."""
    from .run_files import read_json

    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary = read_json(path, SUMMARY_TYPES)
    return summary if summary["stopped"] or summary["epochs"] >= settings.recipe.epochs else None


SUMMARY_TYPES: dict[str, tuple[type, ...]] = {
    "val_accuracy": (float, int),
    "test_accuracy": (float, int),
    "best_epoch": (int,),
    "epochs": (int,),
    "stopped": (str,),
}
