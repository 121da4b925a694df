"""Tasks done in this process: mlpkit's own names, or any others that are trusted."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from inspect import signature
from typing import Any

from mlpkit_backends import Backend, load

from .child import describe
from .interface import Outcome, Task
from .submissions import FUNCTIONS
from .tasks import TASKS


class LocalRunner:
    """Does tasks with a mapping of the assignment's names; reseeds NumPy's global generator."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names

    def run(self, task: Task) -> Outcome:
        """Do it here. Nothing stops what runs for ever."""
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                arrays = TASKS[task.name](self.names, task.arrays, task.settings)
        except Exception as error:
            return Outcome(error=describe(error, "/"), output=printed.getvalue())
        return Outcome(arrays, output=printed.getvalue())


def reference(backend: str | Backend | None = None) -> LocalRunner:
    """A runner of mlpkit.notebook's names on a backend, the default one where it is None."""
    return LocalRunner(reference_names(load(backend)))


def reference_names(backend: Backend) -> dict[str, Any]:
    """mlpkit.notebook's names with that backend built in, and the activation functions."""
    from mlpkit import activations, notebook

    names = {name: on(backend, getattr(notebook, name)) for name in notebook.__all__}
    names["activations"] = {name: on(backend, getattr(activations, name)) for name in FUNCTIONS}
    return {**names, "asarray": backend.asarray, "to_numpy": backend.to_numpy}


def on(backend: Backend, known: Any) -> Any:
    """A class or function with its backend chosen, where it takes one."""
    if callable(known) and "backend" in signature(known).parameters:
        return partial(known, backend=backend)
    return known
