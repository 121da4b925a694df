"""Ctrl-C, SIGTERM and SIGHUP: what they raise, and how a training holds them back until it can be
left."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):  # the terminal is closed; not on Windows
    NAMES[signal.SIGHUP] = "SIGHUP"


class Stopped(BaseException):
    """A signal ends the command. `status`: the exit status that says so, 128 and its number. A
    note, where there is one, is the command that resumes what was stopped."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {NAMES[signal.Signals(number)]}")
        self.status = 128 + number


class Paused(Stopped):
    """The same, raised where what is under way can be saved and resumed."""


heard: list[int] = []  # the signals that `stop` has raised Stopped for
again: set[int] = set()  # those that `undropped` sends


def stop(number: int, frame: Any = None) -> None:
    """A handler that raises Stopped wherever the process is. Within some callbacks Python drops
    what is raised: it comes again, and a training asks `heard` when it begins."""
    heard.append(number)
    raise Stopped(number)


@contextmanager
def stopping() -> Iterator[None]:
    """What a command runs in: a signal raises Stopped, even where a library turns that into another
    error."""
    try:
        with handled(stop), undropped(), unmasked(heard):
            yield
    finally:
        heard.clear()


@contextmanager
def undropped() -> Iterator[None]:
    """A Stopped that Python drops and would print, as from a callback of the compiler's (numba
    spends seconds in those), comes again a moment later, until it gets through."""
    before, timers = sys.unraisablehook, []

    def send(number: int) -> None:
        again.add(number)
        if hasattr(signal, "pthread_kill"):  # to the main thread, which may be waiting
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            signal.raise_signal(number)

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Stopped):
            before(dropped)
            return
        timers.append(threading.Timer(0.05, send, [dropped.exc_value.status - 128]))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        again.clear()
        sys.unraisablehook = before


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Within the block the handler has every signal of NAMES but those that were ignored before, as
    by nohup and &. Only the main thread hears signals: in another this does nothing."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in NAMES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A Ctrl-C that would raise KeyboardInterrupt does so at the end of the block; a second one at
    once. Another handler than Python's own stays."""
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not own or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting, leaving = False, False

    def wait(number: int, frame: Any) -> None:
        nonlocal waiting
        if waiting and not leaving:
            raise KeyboardInterrupt
        waiting = True

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        leaving = True
        if signal.getsignal(signal.SIGINT) is wait:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if waiting:
            raise KeyboardInterrupt


@contextmanager
def unmasked(raised: list[int]) -> Iterator[None]:
    """An error after a handler raised Stopped is the signal's, and is raised as that, with its
    notes: what a handler raises may come out as another, as a RuntimeError from a class that is
    being made (__set_name__) or an OSError from a library that was reading through a callback."""
    try:
        yield
    except Exception as error:
        if not raised:
            raise
        stopped = Stopped(raised[-1])
        for note in getattr(error, "__notes__", ()):
            stopped.add_note(note)
        raise stopped from error


class Holding:
    """What `hold` yields. From the first `check` on, a signal is held until the next, which raises
    Paused. One that comes before, or while another is held, raises Stopped at once."""

    def __init__(self) -> None:
        self.begun, self.number = False, heard[0] if heard else 0
        self.raised: list[int] = []

    def hear(self, number: int, frame: Any = None) -> None:
        """The handler. What it raises may be dropped: it comes again, or is heard at the next
        check, whichever is first."""
        came_again = number in again
        again.discard(number)
        at_once = not self.begun or (self.number and not came_again)
        self.number = number
        if at_once:
            self.raised.append(number)
            raise Stopped(number)

    def check(self) -> None:
        """Raise Paused where a signal has come."""
        self.begun = True
        if self.number:
            raise Paused(self.number)


@contextmanager
def hold() -> Iterator[Holding]:
    """Signals wait, within the block, for a moment at which training can be left."""
    holding = Holding()
    with handled(holding.hear), unmasked(holding.raised):
        yield holding
