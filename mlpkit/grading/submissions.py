"""A submission's names, from a folder laid out as the assignment's or from one module.

It runs in the child beside tasks.py, so it imports the standard library and NumPy alone. A file is
imported when the first of its names is asked for: what is missing or broken in one costs only the
sections that need it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# Where each name is at home; ACTIVATIONS has the functions of the last row of the contract.
FILES = {
    "lib/mlp/layer_utils.py": "sequential flatten fc leaky_relu dropout cross_entropy softmax",
    "lib/mlp/fully_conn.py": "Module TestFCReLU SmallFullyConnectedNetwork DropoutNet TinyNet "
    "FullyConnectedNetwork",
    "lib/optim.py": "Optimizer SGD SGDM RMSProp Adam",
    "lib/mlp/train.py": "train_net compute_acc",
    "lib/mlp/datasets.py": "SVHN_data",
    "lib/grad_check.py": "rel_error eval_numerical_gradient eval_numerical_gradient_array",
}
ACTIVATIONS = "lib/mlp/activations.py"
FUNCTIONS = ("sigmoid", "leaky_relu", "relu", "elu", "selu", "tanh")
NOTEBOOK = "a notebook can't be graded: export its code as the starter's files"


class MissingNameError(LookupError):
    """A sentence: which name isn't there, and where it was looked for."""


class Names(dict[str, Any]):
    """The assignment's names, each found by `find` when it is first asked for."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        super().__init__()
        self.find = find

    def __missing__(self, name: str) -> Any:
        self[name] = self.find(name)
        return self[name]


def load(path: str | Path) -> Names:
    """The names of a submission: a folder, which may hold the assignment's a few folders down, or
    a module. MissingNameError, here or when a name is asked for, says what isn't there. Nothing is
    imported yet."""
    entry = entry_of(Path(path).resolve())
    return names_of_module(entry) if entry.is_file() else names_of_folder(entry)


def entry_of(path: Path) -> Path:
    """The folder that holds the assignment's files, or the one module. MissingNameError."""
    if path.is_file():
        return path
    modules = sorted(file for file in path.glob("*.py") if not beside(file))
    entry = root_of(path) or (modules[0] if len(modules) == 1 else None)
    if entry is not None:
        return entry
    if any(path.rglob("*.ipynb")):
        raise MissingNameError(NOTEBOOK)
    raise MissingNameError(
        f"it has none of {', '.join(FILES)}, and isn't one module: lay it out as the starter"
    )


def root_of(folder: Path) -> Path | None:
    """The folder that holds lib/ with the assignment's files: this one, or the only one of those
    up to two below. MissingNameError for several."""
    if is_root(folder):
        return folder
    below = [*folder.glob("*/"), *folder.glob("*/*/")]
    found = sorted(path for path in below if is_root(path))
    if len(found) > 1:
        names = " and ".join(str(path.relative_to(folder)) for path in found)
        raise MissingNameError(f"the assignment is in {names}: hand in the one that counts, alone")
    return found[0] if found else None


def is_root(folder: Path) -> bool:
    """Whether a folder holds one of the assignment's files at its place."""
    return any((folder / file).is_file() for file in (*FILES, ACTIVATIONS))


def beside(path: Path) -> bool:
    """Whether it is what macOS and editors leave beside a submission."""
    return path.name == "__MACOSX" or path.name.startswith(".")


def names_of_module(path: Path) -> Names:
    """One module's names; it may import its neighbours."""
    modules: list[ModuleType] = []

    def find(name: str) -> Any:
        if not modules:
            modules.append(import_file(path))
        found = vars(modules[0])
        if name == "activations":
            return {function: found[function] for function in FUNCTIONS if function in found}
        if name not in found:
            raise MissingNameError(f"{name} is missing: it was looked for in {path.name}")
        return found[name]

    return Names(find)


def import_file(path: Path) -> ModuleType:
    """The module that a file is. Its name is none that it or anything else imports."""
    put_first(path.parent)
    spec = importlib.util.spec_from_file_location("submission", path)
    if spec is None or spec.loader is None:
        raise MissingNameError(f"{path.name} isn't a Python module: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def names_of_folder(root: Path) -> Names:
    """The names of the assignment's files in a folder, which import each other as lib.mlp... ."""
    put_first(root)
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "lib"]:
        del sys.modules[loaded]  # another submission's
    importlib.invalidate_caches()

    def find(name: str) -> Any:
        if name == "activations":
            return activations_of(root)
        homes = [file for file, names in FILES.items() if name in names.split()]
        for file in homes + [file for file in FILES if file not in homes]:
            if (root / file).is_file():
                try:
                    found = vars(import_within(file))
                except Exception:
                    if file in homes:
                        raise
                    continue  # the sections that need this file say what is wrong with it
                if name in found:
                    return found[name]
        raise MissingNameError(missing(name, root, homes))

    return Names(find)


def missing(name: str, root: Path, homes: list[str]) -> str:
    """Where a name should have been."""
    home = homes[0] if homes else next(iter(FILES))
    if not (root / home).is_file():
        return f"{name} is missing: it was looked for in {home}, and there is no such file"
    return f"{name} is missing: it was looked for in {home} and the files beside it"


def activations_of(root: Path) -> dict[str, Any]:
    """The activation functions, from a file of their own."""
    if not (root / ACTIVATIONS).is_file():
        raise MissingNameError(
            f"the activation functions are missing: {', '.join(FUNCTIONS)} were looked for in "
            f"{ACTIVATIONS}, and there is no such file"
        )
    found = vars(import_within(ACTIVATIONS))
    return {function: found[function] for function in FUNCTIONS if function in found}


def import_within(file: str) -> ModuleType:
    """The module of a file below the root, by its dotted name."""
    return importlib.import_module(file.removesuffix(".py").replace("/", "."))


def put_first(folder: Path) -> None:
    """Let imports look in a folder before anywhere else."""
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
