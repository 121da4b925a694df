"""The entry point: runs a command, and makes sentences of what goes wrong."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import NoReturn

from .output import UNREAD, discard
from .signals import Stopped, stopping


def main() -> None:
    """The entry point: what a user can mend is a sentence and exit status 2, and a signal a word
    and its own status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may know ASCII alone; folders' names don't
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stopping():
            from .commands import app  # within, as it takes a moment in which a signal may come

            if "" in sys.argv[1:]:
                raise ValueError("an argument is empty: is a variable of the command line unset?")
            try:
                app(prog_name="mlpkit")
            finally:
                sys.stdout.flush()  # now, while what comes of it can be said
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer makes it status 1, which of
            sys.exit(UNREAD)  # `grade` and others has another meaning
        raise
    except BrokenPipeError:
        discard()
        sys.exit(UNREAD)
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
        if error.filename is None:  # a file would be named
            return "the disk that the output goes to is full: make room, or send it elsewhere"
        return f"the disk is full for {error.filename}: make room, or write elsewhere (--out)"
    if isinstance(error, FileNotFoundError) and error.filename is None:  # as of os.getcwd
        return "the folder that this runs in is gone: change to another"
    if isinstance(error, FileNotFoundError) and not Path(error.filename).parent.exists():
        return f"{error.filename} can't be read or written: its folder is gone, or has moved"
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
    try:
        sys.stdout.flush()
    except OSError:
        discard()  # Python would fail again, with a status of its own
    sys.exit(status)
