"""The options of `mlpkit train` as settings, of a new run or of one to resume."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from .checkpoint import CheckpointError, reading
from .history_file import read_history
from .recipes import DEFAULT_RECIPE, RECIPES, Recipe, find_recipe
from .run_files import RunError, check_types, read_config, read_json
from .runs import Settings
from .scoring import BEST


def new_settings(given: dict[str, Any], backend: str | None) -> Settings:
    """The settings of a new run from the options given."""
    rest = dict(given)
    base_name = rest.pop("recipe", DEFAULT_RECIPE)
    if "lr_decay" in rest:
        rest.setdefault("lr_decay_every", 1)
    elif "lr_decay_every" in rest:
        raise ValueError("--lr-decay-every is when --lr-decay multiplies: give both, or neither")
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
    """The settings of a run to resume. RunError where an option given contradicts them, but for
    more epochs, another patience, and the backend."""
    check_types(config, SETTINGS_TYPES, folder / "config.json")
    for key, value in given.items():
        option = f"--{key.replace('_', '-')}"
        if key == "epochs" and value < config["epochs"]:
            raise RunError(
                f"{folder} has {option} {config['epochs']}, which can only be raised; got {value}"
            )
        if key not in ("epochs", *STOPPING) and value != config.get(key):
            raise RunError(
                f"{folder} was started with {option} {config.get(key)}; got {value}: leave "
                f"{option} out to resume it, or name another folder for a new run"
            )
    recipe = Recipe(**{f.name: config[f.name] for f in fields(Recipe)})
    return Settings(
        config["name"],
        replace(recipe, epochs=given.get("epochs", recipe.epochs)),
        backend=backend or config["backend"],
        base=config["recipe"],
        **{key: config[key] for key in RESUMED},
        **{key: given.get(key, config[key]) for key in STOPPING},
    )


RESUMED = ("keep_prob", "train_size", "val_size", "dtype", "seed")
STOPPING = ("patience", "min_delta")


def finished(folder: Path, settings: Settings, config: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to train. None, too, where a file that it ends
    with is damaged, which is said: to go on writes it again."""
    if not (folder / "summary.json").is_file():
        return None
    try:
        summary = read_json(folder / "summary.json", SUMMARY_TYPES)
        read_config(folder)
        read_history(folder)
        with reading(folder / BEST, checked=True):
            pass
    except (RunError, CheckpointError) as error:
        print(error)
        return None
    same = all(getattr(settings, key) == config[key] for key in STOPPING)
    ended = summary["epochs"] >= settings.recipe.epochs or (summary["stopped"] and same)
    return summary if ended else None


SUMMARY_TYPES: dict[str, tuple[type, ...]] = {
    "val_accuracy": (float, int),
    "test_accuracy": (float, int),
    "best_epoch": (int,),
    "epochs": (int,),
    "stopped": (str,),
}
