"""How many threads: the affinity, a container's limit, and what the user says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import threadpoolctl

import mlpkit_backends
from mlpkit_backends import threads

VARIABLES = (threads.VARIABLE, *threads.LIBRARIES, "NUMBA_NUM_THREADS")


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment and the libraries' threads as they were."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    limits = threadpoolctl.threadpool_limits(2)  # so that one thread is a change
    yield
    limits.restore_original_limits()


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of sixteen processors, all of which the process may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


def threads_of_blas() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


@pytest.mark.parametrize(
    ("contents", "count"),
    [
        (["max 100000"], 16),
        (["50000 100000"], 1),
        (["350000 100000"], 4),
        (["9900000 100000"], 16),
        ([""], 16),
        (["-1", "100000"], 16),
        (["200000", "100000"], 2),
    ],
)
@pytest.mark.usefixtures("sixteen")
def test_a_containers_limit(
    contents: list[str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / str(i) for i in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content)
    monkeypatch.setattr(threads, "CGROUP_LIMITS", ([tmp_path / "missing"], files))
    assert threads.thread_count() == count


def test_what_the_user_says_goes_for_blas_too() -> None:
    threads.use_threads(1)
    assert threads.thread_count() == 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert threads_of_blas() == {1}


@pytest.mark.usefixtures("sixteen")
def test_what_the_environment_says_goes_for_blas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, "1")
    threads.use_threads(None)
    assert threads_of_blas() == {1}


def test_as_many_threads_as_processors_are_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setenv(threads.VARIABLE, "3")
    threads.use_threads(None)
    assert threads_of_blas() == {3}


def test_a_backend_that_is_loaded_is_held_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, "1")
    mlpkit_backends._find.cache_clear()
    mlpkit_backends.load("numpy")
    assert threads_of_blas() == {1}


@pytest.mark.usefixtures("sixteen")
def test_a_containers_limit_goes_for_blas_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    monkeypatch.setattr(threads, "CGROUP_LIMITS", ([tmp_path / "cpu.max"],))
    threads.use_threads(None)
    assert threads_of_blas() == {1}


@pytest.mark.usefixtures("sixteen")
def test_nothing_said_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "CGROUP_LIMITS", ([tmp_path / "missing"],))
    before = threadpoolctl.threadpool_info()
    threads.use_threads(None)
    assert threadpoolctl.threadpool_info() == before
    assert not any(name in os.environ for name in VARIABLES)


def test_numba_is_not_told_another_number_once_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    threads.use_threads(1)
    assert "NUMBA_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("count", [0, -2, 17, 1000])
@pytest.mark.usefixtures("sixteen")
def test_a_number_that_cannot_be(count: int) -> None:
    with pytest.raises(ValueError, match=rf"must be from 1 to the 16 processors.*; got {count}"):
        threads.use_threads(count)


@pytest.mark.parametrize("said", ["abc", "0", "-1", "1.5"])
def test_an_environment_that_says_no_number(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, said)
    with pytest.raises(ValueError, match=rf"MLPKIT_THREADS must be .*; got '{said}'"):
        threads.use_threads(None)
