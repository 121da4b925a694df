"""The command line as its user meets it: help, runs from end to end, what is said and returned."""

import json
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import mlpkit_backends
from mlpkit import svhn
from tests.commands import HERE, SMALL, TEST, TRAIN, VAL, Mlpkit, environment, history

COMMANDS = {
    "": "train eval plot activations report compare verify-report bench doctor grade check data",
    "train": "--recipe --net --keep-prob --optimizer --lr --batch-size --epochs --data --train-size"
    " --val-size --backend --dtype --seed --out --patience --min-delta --checkpoint-every --resume",
    "eval": "--data --backend",
    "plot": "--out",
    "activations": "--out",
    "report": "--pdf",
    "compare": "--epochs --data --train-size --jobs --out --backend --seed",
    "verify-report": "",
    "grade": "--weights --data --out --junit --markdown --csv --rubric"
    " --timeout --memory --backend --starter",
    "check": "--backend --section",
    "data": "fetch verify info make",
    "data fetch": "",
    "data verify": "",
    "data info": "--data --out",
    "data make": "--out --train-size --test-size --seed",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_explains_every_option(mlpkit: Mlpkit, command: str) -> None:
    status, out, err = mlpkit(*command.split(), "--help")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"Usage: mlpkit {command}".rstrip())
    assert max(map(len, lines)) <= 80
    for name in COMMANDS[command].split():
        # The name, then what it is for, on that line or the next.
        said = re.search(rf"^  {re.escape(name)}\b[^\n]*?(  +|\n {{10,}})(\w\S*)", out, re.M)
        assert said, name
    for line in lines:
        if re.match(r"  [a-z]+  ", line):  # a command's summary isn't cut
            assert line.endswith("."), line
            assert not line.endswith("...")


def test_help_comes_at_once() -> None:
    code = (
        "import sys; sys.argv = ['mlpkit', '--help']\n"
        "from mlpkit.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    loaded = done.stdout.splitlines()[-1]
    assert "'mlpkit.cli'" in loaded
    for heavy in ("numpy", "matplotlib", "scipy", "urllib.request", "safetensors", "cupy"):
        assert f"'{heavy}'" not in loaded


def test_version_and_bare_call(mlpkit: Mlpkit) -> None:
    status, out, _ = mlpkit("--version")
    assert status == 0
    assert re.fullmatch(r"mlpkit \d+\.\d+\.\d+\n", out)
    _, out, err = mlpkit()
    assert "Usage: mlpkit" in out + err


def test_a_run_from_end_to_end(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    arguments = ["--data", digits, "--net", "8", "--epochs", "3", "--batch-size", "10"]
    status, out, err = mlpkit("train", *arguments)
    assert (status, err) == (0, "")
    run = tmp_path / "runs" / "8-adam"
    summary = json.loads((run / "summary.json").read_text())
    per_epoch = (TRAIN - VAL) // 10
    assert [int(row["iteration"]) for row in history(run)] == list(range(1, 3 * per_epoch + 1))
    lines = out.splitlines()
    assert lines[0].startswith("Device    numpy: ")
    assert (
        lines[1]
        == f"Data      {digits}: {TRAIN - VAL} training, {VAL} validation, {TEST} test images"
    )
    assert lines[2] == (
        "Training  MLP 8 with adam, lr 0.0005, batch size 10, 3 epochs, float32, seed 123"
    )
    assert lines[3] == "Run       runs/8-adam"
    ends = [row for row in history(run) if row["lr"]]
    for number, (line, row) in enumerate(zip(lines[7:10], ends, strict=True), start=1):
        words = line.split()
        assert words[:3] == [str(number), "/", "3"]
        assert words[3:7] == [
            f"{float(row['train_loss']):.4f}",
            f"{float(row['val_loss']):.4f}",
            f"{float(row['train_acc']):.1%}",
            f"{float(row['val_acc']):.1%}",
        ]
        assert words[8:] == ["it/s"]
        assert len(line) <= 80
    assert lines[10].startswith(
        f"Best epoch {summary['best_epoch']}: validation accuracy "
        f"{summary['val_accuracy']:.1%}, test accuracy {summary['test_accuracy']:.1%}; "
    )
    assert lines[11].startswith("In runs/8-adam/: ")
    named = lines[11].partition(": ")[2].split(", ")
    assert sorted(named) == sorted(path.name for path in run.iterdir())
    # No terminal: no control characters.
    assert all(line.isprintable() for line in lines)

    status, out, err = mlpkit("eval", "runs/8-adam")
    assert (status, err) == (0, "")
    title, *lines = out.splitlines()
    assert title == f"runs/8-adam on {digits}"
    val, test = (line.split() for line in lines)
    assert (val[0], val[2:5]) == ("val", ["images", "accuracy", f"{summary['val_accuracy']:.2%}"])
    assert (test[0], test[4]) == ("test", f"{summary['test_accuracy']:.2%}")
    assert test[5:] == ["loss", f"{summary['test_loss']:.4f}"]
    assert mlpkit("eval", "runs/8-adam", "--data", digits)[:2] == (0, out)


def test_moved_data_is_split_as_the_run_did(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    options = ["--data", digits, "--net", "4", "--epochs", "1", "--batch-size", "10"]
    assert mlpkit("train", *options, "--val-size", "9", "--out", "run")[0] == 0
    before = mlpkit("eval", "run")[1].splitlines()
    assert before[1].split()[:3] == ["val", "9", "images"]
    shutil.copytree(digits, tmp_path / "moved")
    status, out, err = mlpkit("eval", "run", "--data", "moved")
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == before[1:]


def test_one_seed_one_result(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    for name, seed in (("one", "1"), ("two", "1"), ("other", "2")):
        arguments = ["--data", digits, "--net", "4", "--epochs", "1", "--batch-size", "10"]
        assert mlpkit("train", *arguments, "--seed", seed, "--out", name)[0] == 0
    for file in ("history.csv", "best.safetensors"):
        one, two, other = (
            (tmp_path / name / file).read_bytes() for name in ("one", "two", "other")
        )
        assert one == two
        assert one != other


# The options, and the run's name, network, optimizer, learning rate and batch size.
STARTS: dict[str, tuple[str, str, str, float, int]] = {
    "--recipe tinynet --batch-size 8 --train-size 8": ("tinynet", "tinynet", "sgd", 1e-2, 8),
    "--recipe sgd": ("sgd", "fcn", "sgd", 1e-2, 32),
    "--recipe sgdm": ("sgdm", "fcn", "sgdm", 1e-2, 32),
    "--recipe rmsprop": ("rmsprop", "fcn", "rmsprop", 5e-4, 32),
    "--recipe adam": ("adam", "fcn", "adam", 5e-4, 32),
    "": ("adam", "fcn", "adam", 5e-4, 32),
    "--optimizer rmsprop --lr 0.25": ("fcn-rmsprop", "fcn", "rmsprop", 0.25, 32),
    "--lr 0.5": ("adam", "fcn", "adam", 0.5, 32),
    "--optimizer sgd": ("fcn-sgd", "fcn", "sgd", 1e-2, 32),
    "--net 4,4": ("4,4-adam", "4,4", "adam", 5e-4, 32),
    "--net 4 --keep-prob 0.5 --optimizer sgdm": ("4-sgdm", "4", "sgdm", 1e-2, 32),
    "--net 4 --keep-prob 1 --optimizer rmsprop": ("4-rmsprop", "4", "rmsprop", 5e-4, 32),
    "--net 4,4,4 --dtype float64 --batch-size 57": ("4,4,4-adam", "4,4,4", "adam", 5e-4, 57),
    "--net 4 --backend numpy --val-size 20 --train-size 40": ("4-adam", "4", "adam", 5e-4, 32),
}


@pytest.mark.parametrize("options", STARTS)
def test_recipes_and_their_changes(
    mlpkit: Mlpkit, digits: str, tmp_path: Path, options: str
) -> None:
    status, _, err = mlpkit("train", "--data", digits, "--epochs", "1", *options.split())
    assert (status, err) == (0, "")
    name, net, optimizer, lr, batch_size = STARTS[options]
    run = tmp_path / "runs" / name
    config = json.loads((run / "config.json").read_text())
    found = tuple(config[key] for key in ("name", "net", "optimizer", "lr", "batch_size"))
    assert found == (name, net, optimizer, lr, batch_size)
    assert len(history(run)) == config["train_size"] // batch_size
    assert mlpkit("eval", str(run))[0] == 0


def test_runs_without_a_name_of_their_own(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    for _ in range(3):
        mlpkit("train", "--data", digits, "--net", "2", "--epochs", "1")
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["2-adam", "2-adam-2", "2-adam-3"]


def test_another_run_is_left_alone(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    arguments = ["train", "--data", digits, "--net", "2", "--epochs", "1", "--out", "run"]
    mlpkit(*arguments)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    status, out, err = mlpkit(*arguments, "--seed", "9")
    assert (status, out) == (2, "")
    assert err == (
        "mlpkit: run holds a run already: name another folder with --out, or resume that one: "
        "`mlpkit train --resume run`\n"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


# Options that can't be, and what is said of them.
BAD: dict[str, str] = {
    "--batch-size 58": "the batch size must be from 1 to the 57 training images; got 58",
    "--batch-size 0": "batch_size must be a whole number, at least 1; got 0",
    "--batch-size -1": "batch_size must be a whole number, at least 1; got -1",
    "--epochs 0": "epochs must be a whole number, at least 1; got 0",
    "--epochs -2": "epochs must be a whole number, at least 1; got -2",
    "--lr 0": "lr must be positive and finite; got 0.0",
    "--lr -1": "lr must be positive and finite; got -1.0",
    "--lr nan": "lr must be positive and finite; got nan",
    "--lr inf": "lr must be positive and finite; got inf",
    "--lr-decay 0": "lr_decay must be positive and finite; got 0.0",
    "--lr-decay nan": "lr_decay must be positive and finite; got nan",
    "--lr-decay-every 2": "--lr-decay-every is when --lr-decay multiplies: give both, or neither",
    "--lr-decay 0.5 --lr-decay-every 0": "lr_decay_every must be a whole number, at least 1; got 0",
    "--keep-prob -0.1": "in [0, 1]; got -0.1",
    "--keep-prob 1.1": "in [0, 1]; got 1.1",
    "--keep-prob nan": "in [0, 1]; got nan",
    "--net fcn --keep-prob 0.5": "the network fcn has no dropout; got a keep_prob of 0.5: name",
    "--net deep": "tinynet, fcn, or positive hidden widths as in 512,256; got 'deep'",
    "--net 8,0": "positive hidden widths as in 512,256; got '8,0'",
    "--net 8,": "positive hidden widths as in 512,256; got '8,'",
    "--net=": "positive hidden widths as in 512,256; got ''",
    "--optimizer lion": "the optimizer must be one of sgd, sgdm, rmsprop, adam; got 'lion'",
    "--recipe best": "must be one of tinynet, sgd, sgdm, rmsprop, adam; got 'best'",
    "--backend tpu": "backend must be one of auto, ",
    "--dtype float16": "the dtype must be float32 or float64; got 'float16'",
    "--seed -1": "seed must be an integer from 0 to 2**64 - 1; got -1",
    "--seed 18446744073709551616": "from 0 to 2**64 - 1; got 18446744073709551616",
    "--train-size 0": "train_size must be a whole number, at least 1; got 0",
    "--train-size 58": "holds 57 images; got a train size of 58: ask for 1 to 57",
    "--val-size 0": "val_size must be a whole number, at least 1; got 0",
    "--val-size 60": "holds 60 images; got a validation size of 60: ask for 1 to 59",
    "--data nowhere": "--data takes svhn, synthetic or a folder; no folder is 'nowhere'",
    "--data=": "--data takes svhn, synthetic or a folder; no folder is ''",
    "--data svhn": "data holds no SVHN: `mlpkit data fetch` downloads it",
    "--net 99999999999": "the memory is too small: ",
}


@pytest.mark.parametrize("options", BAD)
def test_options_that_cannot_be(mlpkit: Mlpkit, digits: str, tmp_path: Path, options: str) -> None:
    given = ["train", "--data", digits, "--net", "4", "--out", "run", *options.split()]
    status, out, err = mlpkit(*given)
    assert (status, out) == (2, "")
    assert err.startswith("mlpkit: ")
    assert err.count("\n") == 1
    assert BAD[options] in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--epochs", "two"], "--epochs"),
        (["train", "--lr", "fast"], "--lr"),
        (["train", "--bogus"], "--bogus"),
        (["bogus"], "bogus"),
        (["plot"], "runs"),
    ],
)
def test_words_that_are_no_options(mlpkit: Mlpkit, arguments: list[str], said: str) -> None:
    status, out, err = mlpkit(*arguments)
    assert (status, out) == (2, "")
    assert said in err.lower()
    assert "Traceback" not in err


@pytest.fixture
def afresh() -> Iterator[None]:
    """Backends are looked for anew, before the test and after it."""
    mlpkit_backends._find.cache_clear()
    yield
    mlpkit_backends._find.cache_clear()


def no_driver() -> types.ModuleType:
    """CuPy as it answers on a machine without NVIDIA's driver."""
    cupy = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(driverGetVersion=lambda: 0)
    cupy.cuda = types.SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    return cupy


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(
    ("cupy", "cause", "cure"),
    [
        (None, "CuPy is not installed", 'pip install "cupy-cuda13x[ctk]"'),
        (no_driver(), "no NVIDIA driver answers on this machine", "install NVIDIA's driver"),
    ],
)
def test_cupy_where_it_cannot_run(
    mlpkit: Mlpkit,
    digits: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cupy: types.ModuleType | None,
    cause: str,
    cure: str,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    status, out, err = mlpkit("train", "--data", digits, "--backend", "cupy")
    assert (status, out) == (2, "")
    assert err.startswith("mlpkit: backend cupy can't be used: ")
    assert cause in err
    assert cure in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    arguments = ["--net", "4", "--optimizer", "sgd", "--lr", "1e25", "--batch-size", "10"]
    status, out, err = mlpkit("train", "--data", digits, *arguments, "--out", "run")
    assert status == 2
    said = re.fullmatch(
        r"mlpkit: the loss became (?:nan|inf) at iteration (\d+): training diverged; lower the "
        r"learning rate \(lr\)\n",
        err,
    )
    assert said
    assert len(history(tmp_path / "run")) == int(said[1]) - 1 > 0
    assert out.splitlines()[-1] == "Stopped early: what was recorded is in run/"
    assert (tmp_path / "run" / "curves.png").is_file()
    assert mlpkit("plot", "run")[:2] == (0, "run/curves.png\n")
    status, _, err = mlpkit("eval", "run")
    assert (status, "has no best.safetensors: it was stopped" in err) == (2, True)


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_run_into_a_file(mlpkit: Mlpkit, digits: str, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("kept")
    status, said, err = mlpkit("train", "--data", digits, "--net", "2", "--out", out)
    assert (status, said) == (2, "")
    assert re.fullmatch(rf"mlpkit: {out} .*is a file; .* --out\n", err)
    assert (tmp_path / "file").read_text() == "kept"


def test_plots(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        mlpkit("train", "--data", digits, "--net", "2", "--epochs", "1", "--out", name)
    (tmp_path / "one" / "curves.png").unlink()
    # The arguments, the file and its pixels: figures of 10x4, 8x11 and 10x6 inches at 120 an inch.
    for arguments, out, shape in (
        (["plot", "one"], "one/curves.png", (480, 1200)),
        (["plot", "one", "two"], "comparison.png", (1320, 960)),
        (["plot", "two", "--out", "a.png"], "a.png", (480, 1200)),
        (["activations"], "activations.png", (720, 1200)),
    ):
        assert mlpkit(*arguments) == (0, f"{out}\n", "")
        assert matplotlib.image.imread(tmp_path / out).shape[:2] == shape
    before = sorted(tmp_path.iterdir())
    for arguments, said in (
        (["plot", "one", "--out", "a.docx"], "a.docx should end in one of "),
        (["plot", "one", "--out", "new/a.png"], "there is no folder new for a.png: make it first"),
        (["activations", "--out", "a"], "a should end in one of "),
        (["plot", "one", "nowhere"], "there is no folder nowhere: name a run's"),
        (["plot", "one", "--out", ""], "an argument is empty: is a variable of the command line"),
    ):
        status, out, err = mlpkit(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"mlpkit: {said}")
        assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_data_set_holds(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    status, out, err = mlpkit("data", "info", "--data", digits, "--out", "samples.png")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{digits}: images uint8 (N, 32, 32, 3)")
    assert lines[-1] == "samples.png"
    assert matplotlib.image.imread(tmp_path / "samples.png").shape[:2] == (840, 840)
    table = [re.findall(r"\w+", line) for line in lines]
    counts = {
        row[0]: [int(n) for n in row[1:]] for row in table if len(row) == 4 and row[1].isdigit()
    }
    assert counts.pop("all") == [TRAIN - VAL, VAL, TEST]
    assert list(counts) == [str(digit) for digit in range(10)]
    assert np.sum(list(counts.values()), axis=0).tolist() == [TRAIN - VAL, VAL, TEST]
    assert not any("\x1b" in line for line in lines)


def test_data_made_in_a_folder(mlpkit: Mlpkit, tmp_path: Path) -> None:
    made = ["data", "make", "--out", "new", "--train-size", "12", "--test-size", "11"]
    assert mlpkit(*made) == (0, "new/ holds 12 training and 11 test images.\n", "")
    before = {path: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    status, _, err = mlpkit(*made)
    assert (status, err.startswith("mlpkit: new holds data already: ")) == (2, True)
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before


def test_data_verified(mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = mlpkit("data", "verify")
    assert (status, err) == (2, "")
    missing = "missing from data: mlpkit data fetch"
    assert out == f"train_32x32.mat: {missing}\ntest_32x32.mat: {missing}\n"
    monkeypatch.setenv("MLPKIT_DATA", str(tmp_path))
    (tmp_path / "a").write_bytes(b"abc")
    # The hash of "abc" in FIPS 180-2, appendix B.1.
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    files = (svhn.RemoteFile("a", 3, known),)
    monkeypatch.setattr(svhn, "FILES", files)
    assert mlpkit("data", "verify") == (0, "a: ok\n", "")


def test_a_terminal_that_knows_ascii_alone(digits: str, tmp_path: Path) -> None:
    command = [*HERE, "train", "--data", digits, "--out", "ö", *SMALL]
    done = subprocess.run(
        command,
        env=environment(PYTHONIOENCODING="ascii"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\\xf6" in done.stdout
    assert (tmp_path / "ö" / "summary.json").is_file()
