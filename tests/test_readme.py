"""The Python in the README and in docs/, run as it stands, and the links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlpkit
from mlpkit import synthetic
from mlpkit.commands import app
from mlpkit_backends import Backend

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
BLOCKS = [
    text
    for page in PAGES
    for text in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_link_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [to for to in links if "://" not in to and not (page.parent / to).exists()]
    assert not missing


def block(word: str) -> str:
    """The one block that has the word in it."""
    (found,) = [text for text in BLOCKS if word in text]
    return found


def test_training_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.make(tmp_path / "data" / "synthetic", 300, 50)
    monkeypatch.chdir(tmp_path)
    exec(block("data.mean_image"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_what_a_run_has_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.make(tmp_path / "data" / "synthetic", 200, 50)
    monkeypatch.chdir(tmp_path)
    app(["train", "--data", "synthetic", "--epochs", "1"], standalone_mode=False)
    capsys.readouterr()
    exec(block("load_run"), {})
    digits = capsys.readouterr().out.strip("[]\n").split()
    assert len(digits) == 5
    assert set(digits) <= set("0123456789")


def test_the_notebooks_import_line() -> None:
    scope: dict[str, object] = {}
    exec(block("mlpkit.notebook"), scope)
    assert {"fc", "dropout", "sequential", "SGD", "train_net", "np"} <= set(scope)


def test_the_layer_of_ones_own(backend: Backend) -> None:
    np.random.seed(0)  # which its weights come from
    scope: dict[str, Any] = {}
    exec(block("class Scale"), scope)
    x = backend.asarray(np.random.default_rng(0).standard_normal((5, 6)))
    errors = mlpkit.check_gradients(scope["model"], x, backend.asarray([0, 1, 2, 2, 0]))
    assert set(errors) == {"fc1_w", "fc1_b", "scale", "fc2_w", "fc2_b"}
    assert max(errors.values()) < 1e-6


def test_arrays_of_ones_own_and_a_loop_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    exec(block("slice(400, None)"), scope)
    assert float(capsys.readouterr().out) > 0.85
    exec(block("optimizer.step()"), scope)
    largest = max(
        np.abs(scope["model"].backend.to_numpy(g)).max() for g in scope["model"].net.grads.values()
    )
    assert largest <= np.float32(0.1)


def test_the_optimizer_of_ones_own(backend: Backend) -> None:
    scope: dict[str, Any] = {}
    exec(block("class SignSGD"), scope)
    net = mlpkit.Sequential(mlpkit.FullyConnected(2, 2, name="a"))
    net.params["a_w"] = backend.asarray(np.ones((2, 2)))
    net.grads["a_w"] = backend.asarray(np.array([[0.3, -2.0], [0.0, 1e-9]]))
    scope["SignSGD"](net, lr=0.25).step()
    assert backend.to_numpy(net.params["a_w"]).tolist() == [[0.75, 1.25], [1, 0.75]]
