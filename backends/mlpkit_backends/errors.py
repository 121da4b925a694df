"""What goes wrong in finding a backend, and on its device."""


class BackendUnavailable(RuntimeError):  # noqa: N818 - names a state, as ModuleNotFoundError does
    """The backend asked for can't run here; the message says why and how to mend it."""


class DeviceError(RuntimeError):
    """The device failed, or hasn't the memory; the message says what to do."""
