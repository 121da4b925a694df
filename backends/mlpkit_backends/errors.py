"""What goes wrong in finding a backend."""


class BackendUnavailable(RuntimeError):  # noqa: N818 - names a state, as ModuleNotFoundError does
    """The backend asked for can't run here; the message says why and how to mend it."""
