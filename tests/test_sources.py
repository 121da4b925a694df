"""Which folder a command's data comes from, and what is said about it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpkit import svhn, synthetic
from mlpkit.datasets import DataError
from mlpkit.sources import find_data

FILES = ("train_32x32.mat", "test_32x32.mat")
NOTHING = hashlib.sha256(b"").hexdigest()


def fill(folder: Path, names: tuple[str, ...] = FILES) -> None:
    """Empty files of those names: finding data doesn't read it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that the stand-in is asked for; work happens in tmp_path."""
    folders: list[Path] = []

    def make(
        folder: Path, *, keep: bool, progress: Callable[[int, int], None] | None = None
    ) -> None:
        assert keep
        folders.append(folder)
        fill(folder)

    monkeypatch.setattr(synthetic, "make", make)
    monkeypatch.setattr(svhn, "FILES", [svhn.RemoteFile(name, 0, NOTHING) for name in FILES])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLPKIT_DATA", raising=False)
    return folders


# What data/ holds, the choice, the folder it means, and the beginnings of the lines said.
CASES: dict[str, tuple[tuple[str, ...], str | None, str, tuple[str, ...]]] = {
    "SVHN by default": (FILES, None, "data", ()),
    "SVHN by name": (FILES, "svhn", "data", ()),
    "stand-in by name": (FILES, "synthetic", "data/synthetic", ("Making data/synthetic/",)),
    "stand-in by default": (
        (),
        None,
        "data/synthetic",
        ("No SVHN in data/: using the offline stand-in", "Making data/synthetic/"),
    ),
    "half of SVHN": (
        FILES[:1],
        None,
        "data/synthetic",
        ("No SVHN in data/: using the offline stand-in", "Making data/synthetic/"),
    ),
    "a folder": (FILES, "data", "data", ()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_folder_and_what_is_said(made: list[Path], case: str) -> None:
    there, choice, folder, said = CASES[case]
    fill(Path("data"), there)
    lines: list[str] = []
    assert find_data(choice, say=lines.append) == Path(folder)
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))
    assert all("mlpkit data fetch" in line for line in lines if line.startswith("No SVHN"))
    assert made == ([Path("data/synthetic")] if "synthetic" in folder else [])


def test_the_stand_in_is_made_once(made: list[Path]) -> None:
    lines: list[str] = []
    for _ in range(2):
        find_data("synthetic", say=lines.append)
    assert len(made) == len(lines) == 1


def test_the_environment_names_the_folder(
    made: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLPKIT_DATA", str(tmp_path / "elsewhere"))
    fill(Path("data"))
    with pytest.raises(DataError, match=r"MLPKIT_DATA should name a folder; there is none at "):
        find_data()
    (tmp_path / "elsewhere").mkdir()
    assert find_data(say=lambda line: None) == tmp_path / "elsewhere" / "synthetic"
    fill(tmp_path / "elsewhere")
    assert find_data() == find_data("svhn") == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("svhn", "data holds no SVHN: `mlpkit data fetch`"),
        ("nope", "takes svhn, synthetic or a folder; no folder is 'nope'"),
        ("a.mat", "svhn, synthetic or a folder"),
    ],
)
def test_no_such_data(made: list[Path], choice: str, said: str) -> None:
    Path("a.mat").touch()
    with pytest.raises(DataError, match=said):
        find_data(choice)
    assert made == []
    assert not Path("data").exists()


@pytest.mark.parametrize("choice", [None, "svhn"])
def test_other_files_of_svhns_names_are_not_taken_for_it(made: list[Path], choice: str) -> None:
    fill(Path("data"))
    Path("data", FILES[1]).write_bytes(b"other")
    with pytest.raises(DataError) as caught:
        find_data(choice)
    assert str(caught.value) == (
        "SVHN is expected in data; data/test_32x32.mat has 5 bytes, expected 0: mlpkit data fetch, "
        "or for other data: --data data"
    )
    assert find_data("data") == Path("data")
    assert made == []
