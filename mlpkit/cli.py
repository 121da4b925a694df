"""The entry point: runs a command, and makes sentences of what goes wrong."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import NoReturn

from .signals import Stopped, stopping


def main() -> None:
    """The entry point: what a user can mend is a sentence and exit status 2, and a signal a word
    and its own status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may know ASCII alone; folders' names don't
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stopping():
            from .commands import app  # within, as it takes a moment in which a signal may come

            app(prog_name="mlpkit")
    except Stopped as stopped:
        fail(with_notes(str(stopped), stopped), stopped.status)
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed: pip install {error.name}", 2)
    except (ValueError, ArithmeticError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("MLPKIT_TRACEBACK"):
            raise
        fail(with_notes(describe(error), error), 2)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, one file's


def describe(error: Exception) -> str:
    """An error as a sentence."""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" for {error.filename}" if error.filename is not None else ""
        return f"the disk is full{where}: make room, or write elsewhere (--out)"
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} can't be read or written: {error.strerror}; name another place, or "
            "change who may use it"
        )
    if isinstance(error, MemoryError):
        return f"the memory is too small: {error or 'give it less to hold'}"
    return str(error) or type(error).__name__


def with_notes(sentence: str, error: BaseException) -> str:
    """The sentence, and what else the error has been told to say."""
    return "; ".join([sentence, *getattr(error, "__notes__", ())])


def fail(sentence: str, status: int) -> NoReturn:
    """Say the error, on one line, and end with the status."""
    print(f"mlpkit: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(status)
