"""The notebook, executed: its printed errors against the contract's tolerances, and its pictures.

The trainings run at the small sizes of MLPKIT_NOTEBOOK_QUICK, on 1500 of the stand-in's pictures.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mlpkit import synthetic

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "problem_1.ipynb"
SECTIONS = {  # points, and the number of errors printed
    "FC forward": (2, 1),
    "FC backward": (2, 3),
    "Leaky ReLU forward": (2, 1),
    "Leaky ReLU backward": (2, 1),
    "Dropout forward": (2, 5),
    "Dropout backward": (2, 1),
    "FC + leaky ReLU": (2, 3),
    "Softmax + cross entropy": (2, 3),
    "Small network": (2, 10),
    "Dropout network": (2, 18),
    "SGDM": (2, 2),
    "RMSProp": (2, 2),
    "Adam": (2, 3),
    "Training to 75 %": (5, 0),
    "SGD against SGDM": (2, 0),
    "Four optimizers": (4, 0),
    "Activations": (3, 6),
}
# The contract's, of a section or of each of its errors; how far dropout's means may be apart hangs
# on the numbers drawn.
TOLERANCES: dict[str, float | dict[str, float]] = {
    "FC forward": 1e-8,
    "FC backward": 1e-7,
    "Leaky ReLU forward": 1e-7,
    "Leaky ReLU backward": 1e-10,
    "Dropout backward": 1e-10,
    "FC + leaky ReLU": 1e-7,
    "Softmax + cross entropy": {"loss less log 6": 1e-3, "dx": 1e-7, "softmax of 1e4": 1e-12},
    "Small network": {
        **{f"fc_{n} std": 0.1 * 0.02 for n in (1, 2)},
        **{f"fc_{n} bias": 0.0 for n in (1, 2)},
        **{f"dfc_{n}_{part}": 1e-6 for n in (1, 2) for part in "wb"},
        "scores, sum of differences": 1e-6,
        "loss": 1e-10,
    },
    "Dropout network": 4e-3,
    "SGDM": 1e-7,
    "RMSProp": 1e-7,
    "Adam": 2e-7,
    "Activations": 1e-9,
}
CHECK = re.compile(r"^(.*): (\S+) \(tolerance (\S+)\)$", re.M)
PASS = re.compile(r"^PASS (.*): (\d+) points$", re.M)
LEFT_OUT = re.compile(r"^NOT ASKED (.*): too small a training$", re.M)
TRAINED = ["Training to 75 %", "SGD against SGDM", "Four optimizers"]  # at the real sizes alone


@pytest.fixture(scope="module", params=["numpy", "numba"])
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The executed code cells."""
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[notebook]'")
    pytest.importorskip("ipykernel", reason="pip install -e '.[notebook]'")
    if request.param == "numba":
        pytest.importorskip("numba", reason="pip install -e '.[fast]'")
    folder = tmp_path_factory.mktemp(request.param)
    synthetic.make(folder / "data" / "synthetic", 1500, 50)
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")])
    settings = {
        **os.environ,
        "MLPKIT_BACKEND": request.param,
        "MLPKIT_NOTEBOOK_QUICK": "1",
        "MLPKIT_DATA": str(folder / "data"),
        "PYTHONPATH": path,
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=settings)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    """What a cell wrote to stdout."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


def test_every_section_passes_with_its_points(cells: list[Any]) -> None:
    text = "".join(map(printed, cells))
    assert {name: int(worth) for name, worth in PASS.findall(text)} == {
        name: worth for name, (worth, _) in SECTIONS.items() if name not in TRAINED
    }
    assert LEFT_OUT.findall(text) == TRAINED
    assert printed(cells[-1]) == "17 sections, 29 of 40 points\n"


def test_errors_are_within_the_contracts_tolerances(cells: list[Any]) -> None:
    for cell in cells:
        for name, _ in PASS.findall(printed(cell)):
            errors = CHECK.findall(printed(cell))
            assert len(errors) == SECTIONS[name][1], name
            for what, error, tolerance in errors:
                within = TOLERANCES.get(name, float(tolerance))
                within = within[what] if isinstance(within, dict) else within
                assert float(error) <= within, (name, what)


def test_training_shows_in_plain_lines(cells: list[Any]) -> None:
    text = "".join(map(printed, cells))
    assert "(Iteration 1 / 15) loss: 2.30" in text  # ln 10, before anything is learnt
    assert text.count("(Epoch 1 / 2) Training Accuracy: ") == 4
    names = re.findall(r"^(\w+) validation accuracy: [01]\.\d{4} ", text, re.M)
    assert names == ["TinyNet", "SGDM", "SGDM", "RMSProp", "Adam"]
    kinds = {key for cell in cells for out in cell.outputs for key in out.get("data", {})}
    assert kinds == {"image/png", "text/plain"}  # no widgets


def test_pictures(cells: list[Any]) -> None:
    pictures = [
        base64.b64decode(out.data["image/png"])
        for cell in cells
        for out in cell.outputs
        if out.output_type == "display_data"
    ]
    assert len(pictures) == 4
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_the_file_is_stripped() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
