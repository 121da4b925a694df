"""The files of a run's folder: finding room for them, and reading them back."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .files import atomic, is_other, is_temporary, locked, read_small, remove_temporaries
from .recipes import DTYPES


class RunError(ValueError):
    """A run folder can't be used; the message says why and what to do."""


CHECKPOINTS = LAST, PREVIOUS = "last.safetensors", "last.1.safetensors"
RUN_FILES = (
    "config.json",
    "history.csv",
    "best.safetensors",
    *CHECKPOINTS,
    "summary.json",
    "curves.png",
)


def check_free(folder: Path, *, beside: bool = False) -> None:
    """RunError where the folder can't take a new run. beside: files that no run has may be there,
    as a job scheduler's log."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder: name another with --out")
    there = [path for path in folder.iterdir() if not is_temporary(path)] if folder.is_dir() else []
    if any(path.name in RUN_FILES or not beside for path in there):
        if (folder / "config.json").is_file():
            raise RunError(
                f"{folder} holds a run already: name another folder with --out, or resume that "
                f"one: `{resuming(folder)}`"
            )
        raise RunError(f"{folder} holds other files: name another folder with --out")
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = f"{place} can't be written to" if place.is_dir() else f"{place} is a file"
        raise RunError(f"{folder} can't be made: {why}; name another folder with --out")


def resuming(folder: Path) -> str:
    """The command that resumes a run, as a shell takes it."""
    return f"mlpkit train --resume {shlex.quote(str(folder))}"


def check_files(folder: Path) -> None:
    """RunError where something else is in the place of a run's file."""
    for path in (folder / name for name in RUN_FILES):
        if (path.exists() or path.is_symlink()) and not path.is_file():
            what = "a folder" if path.is_dir() else "a device, a pipe or a link that leads nowhere"
            raise RunError(f"{path} is {what}, and a file should be there: remove it")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block this process alone writes the folder, which is rid of what killed ones left.
    RunError where another process writes it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BlockingIOError as error:
            raise RunError(
                f"{folder} is being written by another process: wait for its end, or name another "
                "folder with --out"
            ) from error
        remove_temporaries(folder)
        yield


def check_places(outputs: Iterable[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """ValueError where a file can't be written at one of the outputs' paths, None being none, or
    would take the place of another's or of an input's."""
    taken = {path.resolve() for path in inputs if path is not None}
    for out in (path for path in outputs if path is not None):
        check_place(out)
        if out.resolve() in taken and not is_other(out):
            raise ValueError(f"{out} is named twice, and would be written over: name another place")
        taken.add(out.resolve())


def check_place(out: Path) -> None:
    """ValueError where a file can't be written at that path."""
    parent = out.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} for {out.name}: make it first")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; a file is to be written: name one in it")
    if not os.access(out if out.exists() else parent, os.W_OK):
        raise ValueError(f"{out} may not be written: name another place")


def free_path(path: Path) -> Path:
    """The path, or the first with -2, -3, ... before its suffix, that doesn't exist."""
    free, n = path, 1
    while free.exists():
        n += 1
        free = path.with_name(f"{path.stem}-{n}{path.suffix}")
    return free


def make_free_folder(parent: Path, name: str) -> Path:
    """The folder that `free_path` finds, made: no other process makes the same."""
    while True:
        folder = free_path(parent / name)
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


# What is read back from config.json, and the types it may have.
CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "net": (str,),
    "optimizer": (str,),
    "lr": (float, int),
    "keep_prob": (float, int),
    "val_size": (int,),
    "dtype": (str,),
    "data": (str,),
}

TYPE_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json, with the types of what is read back checked. Raises RunError."""
    path = folder / "config.json"
    if not path.is_file():
        if any((folder / name).is_file() for name in CHECKPOINTS):
            raise RunError(f"{path} is gone: `{resuming(folder)}` writes it again")
        raise no_run(folder, path.name)
    config = read_json(path, {})
    check_config(config, path)
    return config


def no_run(folder: Path, lacking: str) -> RunError:
    """The error for a folder that isn't a run's."""
    if not folder.exists():
        return RunError(f"there is no folder {folder}: name a run's")
    return RunError(f"{folder} is no run: it has no {lacking}; `mlpkit train` makes one")


def check_config(config: dict[str, Any], path: Path) -> None:
    """RunError where a run's configuration, from that file, can't be read back."""
    check_types(config, CONFIG_TYPES, path)
    if config["dtype"] not in DTYPES:
        raise RunError(
            f"{path}: dtype should be {' or '.join(DTYPES)}; it is {config['dtype']!r}: mend it, "
            "or train again"
        )


def run_data(config: dict[str, Any]) -> Path:
    """The folder of a run's data. RunError where it is gone."""
    folder = Path(config["data"])
    if not folder.is_dir():
        raise RunError(f"the run's data is no longer in {folder}: name its folder with --data")
    return folder


def read_json(path: Path, types: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """A JSON object of a run, with the types of what is named checked. Raises RunError."""
    remedy = f"`{resuming(path.parent)}` writes it again"
    try:
        content = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} should be JSON; it is damaged ({error}): {remedy}") from error
    if not isinstance(content, dict):
        raise RunError(
            f"{path} should hold a JSON object; it holds {type(content).__name__}: {remedy}"
        )
    check_types(content, types, path)
    return content


def check_types(content: dict[str, Any], types: dict[str, tuple[type, ...]], path: Path) -> None:
    """RunError where what the path's file holds is missing or of another type."""
    if wrong := mistyped(content, types):
        raise RunError(
            f"{path}: {wrong}: mend it, or remove the file: `{resuming(path.parent)}` writes it "
            "again"
        )


def mistyped(content: dict[str, Any], types: dict[str, tuple[type, ...]]) -> str:
    """The first value that is missing or of another type, in words; "" where there is none."""
    for key, allowed in types.items():
        value = content.get(key)
        if not isinstance(value, allowed) or isinstance(value, bool):
            came = f"it is {value!r}" if key in content else "it is missing"
            return f"{key} should be {TYPE_NAMES[allowed[0]]}; {came}"
    return ""


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
