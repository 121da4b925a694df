"""How many threads: the affinity, a container's limit, and what the user says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import threadpoolctl

from mlpkit_backends import threads


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment and the libraries' threads as they were."""
    for name in (threads.VARIABLE, *threads.LIBRARIES):
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    limits = threadpoolctl.threadpool_limits()
    yield
    limits.restore_original_limits()


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        ("max 100000", 16),
        ("50000 100000", 1),
        ("350000 100000", 4),
        ("9900000 100000", 16),
        ("", 16),
    ],
)
def test_a_containers_limit(
    limit: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    monkeypatch.setattr(threads, "CGROUP_LIMIT", file)
    assert threads.processors() == count
    monkeypatch.setattr(threads, "CGROUP_LIMIT", tmp_path / "missing")
    assert threads.processors() == 16


def test_what_the_user_says_goes_for_blas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.use_threads(1)
    assert threads.processors() == 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}


def test_nothing_said_nothing_changed() -> None:
    before = threadpoolctl.threadpool_info()
    threads.use_threads(None)
    if threads.processors() == os.cpu_count():
        assert threadpoolctl.threadpool_info() == before


@pytest.mark.parametrize("count", [0, -2])
def test_fewer_than_one(count: int) -> None:
    with pytest.raises(ValueError, match=f"must be at least 1; got {count}"):
        threads.use_threads(count)
