"""Printing where output fails: on a full disk, or where nobody reads any longer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

UNREAD = 141  # the status of who wrote where nobody reads: 128 + SIGPIPE, as in a shell


def tell(line: str, write: Callable[[str], None] = print) -> None:
    """Write a line of a training, which goes on where it can't be: without a word where nobody
    reads any longer, as after `| head`, and with one on the standard error where a disk is full."""
    try:
        write(line)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                why = f"its output can't be written ({error.strerror})"
                print(f"mlpkit: {why}: training goes on without it", file=sys.stderr)
        discard()


def discard() -> None:
    """Discard everything printed from now on, and what is still in the buffers."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
