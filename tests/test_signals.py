"""Signals: held back until training can be left, and at once the second time."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

import pytest

from mlpkit.signals import Holding, Paused, Stopped, hold, stopping

posix = pytest.mark.skipif(os.name != "posix", reason="sends itself signals")


@posix
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "stopped by Ctrl-C"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
)
def test_a_signal_waits_for_the_next_check(number: int, status: int, said: str) -> None:
    before = signal.getsignal(number)
    with hold() as held:
        held.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Paused) as caught:
            held.check()
    assert (caught.value.status, str(caught.value)) == (status, said)
    assert signal.getsignal(number) is before


@posix
def test_before_the_first_check_and_the_second_time_it_stops_at_once() -> None:
    for checks in (0, 1):
        with hold() as held:
            for _ in range(checks):
                held.check()
                os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Stopped) as caught:
                os.kill(os.getpid(), signal.SIGINT)
        assert not isinstance(caught.value, Paused)
        assert caught.value.status == 130


@posix
def test_what_a_callback_dropped_is_heard_at_the_next_check() -> None:
    with stopping():
        with contextlib.suppress(Stopped):  # as Python drops it in some callbacks
            os.kill(os.getpid(), signal.SIGTERM)
        with hold() as held, pytest.raises(Paused) as caught:
            held.check()
    assert caught.value.status == 143
    with hold() as held:
        with contextlib.suppress(Stopped):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Paused) as caught:
            held.check()
    assert caught.value.status == 130
    with hold() as held:
        held.check()  # what was heard is forgotten


CALLBACK = ctypes.CFUNCTYPE(None)


@CALLBACK
def signalled() -> None:
    """What is raised within is dropped, as within the compiler's callbacks."""
    os.kill(os.getpid(), signal.SIGTERM)
    sum(range(10))


@posix
def test_what_a_callback_drops_comes_again_and_is_not_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def stopped() -> None:
        signalled()
        signalled()
        time.sleep(10)

    def paused() -> None:  # what comes once more is no second signal
        with hold() as held:
            signalled()
            held.begun = True
            time.sleep(0.2)
            held.check()

    hook = sys.unraisablehook
    for run, kind in ((stopped, Stopped), (paused, Paused)):
        with pytest.raises(Stopped) as caught, stopping():
            run()
        assert (type(caught.value), caught.value.status) == (kind, 143)
    time.sleep(0.1)  # nothing comes any more
    assert sys.unraisablehook is hook
    assert capfd.readouterr() == ("", "")


@posix
def test_an_error_that_a_signal_comes_out_as_is_the_signals() -> None:
    def name() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Stopped as stopped:  # as Python 3.11 does with what __set_name__ raises
            error = RuntimeError("Error calling __set_name__")
            error.add_note("go on")
            raise error from stopped

    for begin in (contextlib.nullcontext, hold):
        with pytest.raises(Stopped) as caught, stopping(), begin():
            name()
        assert (caught.value.status, caught.value.__notes__) == (143, ["go on"])
    with pytest.raises(OSError, match="full"), stopping():
        raise OSError("the disk is full")  # what was heard is forgotten


@posix
def test_an_error_while_a_signal_waits_is_its_own() -> None:
    def write(held: Holding) -> None:
        held.check()
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), stopping(), hold() as held:
        write(held)


@posix
def test_what_is_told_to_be_ignored_is() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_hears_none() -> None:
    heard = []

    def run() -> None:
        with hold() as held:
            held.check()
            heard.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [signal.getsignal(signal.SIGINT)]
