"""The kernels' cache on disk: used again, and never for kernels that have changed since."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlpkit_backends

pytest.importorskip("numba")
PACKAGE = Path(mlpkit_backends.__file__).parent

# Calls a kernel that calls another file's, and says how often it was compiled.
CODE = """
import numpy as np
from mlpkit_backends.kernels.gemm import gemm_address
from mlpkit_backends.kernels.steps import backward_part
d, w, dx = np.ones((1, 2)), np.ones((3, 2)), np.empty((1, 3))
backward_part(gemm_address("float64"), 0, 1, d, w, dx)
print(dx[0, 0], sum(backward_part.stats.cache_misses.values()))
"""


def run(folder: Path, code: str = CODE, **environment: str) -> list[str]:
    """What the code prints with the packages that lie in the folder, or else where they are now."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_edited_kernel_is_compiled_again(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    assert run(tmp_path) == ["2.0", "1"]
    assert run(tmp_path) == ["2.0", "0"]
    gemm = tmp_path / PACKAGE.name / "kernels" / "gemm.py"
    source = gemm.read_text()
    assert source.count("real(alpha)") == 1
    gemm.write_text(source.replace("real(alpha)", "real(3 * alpha)"))
    assert run(tmp_path) == ["6.0", "1"]


def test_where_nothing_can_be_written_a_folder_goes_with_the_process(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    nowhere = str(file / "below")
    given = {"NUMBA_CACHE_DIR": nowhere, "XDG_CACHE_HOME": nowhere, "TMPDIR": str(tmp_path)}
    assert run(tmp_path, **given) == ["2.0", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", PACKAGE.name]


def test_where_the_installation_can_not_be_written_the_user_keeps_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = {
        "NUMBA_CACHE_DIR": str(tmp_path / "file" / "below"),
        "XDG_CACHE_HOME": "",
        "HOME": str(tmp_path),
    }
    assert run(tmp_path, **given) == ["2.0", "1"]
    assert run(tmp_path, **given) == ["2.0", "0"]
    assert list((tmp_path / ".cache" / "mlpkit").iterdir())


def test_a_folder_may_be_named_from_the_current_one(tmp_path: Path) -> None:
    assert run(tmp_path, NUMBA_CACHE_DIR="kept", XDG_CACHE_HOME=str(tmp_path)) == ["2.0", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_is_damaged_is_compiled_again(tmp_path: Path) -> None:
    given = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(tmp_path, **given) == ["2.0", "1"]
    for kind, damage in (("nbi", lambda whole: whole[:20]), ("nbc", lambda whole: b"\0" * 99)):
        (file,) = tmp_path.rglob(f"*backward_part*.{kind}")
        file.write_bytes(damage(file.read_bytes()))
        assert run(tmp_path, **given) == ["2.0", "1"]
        assert run(tmp_path, **given) == ["2.0", "0"]


def test_a_full_disk_keeps_no_code_and_ends_no_run(tmp_path: Path) -> None:
    code = "import os\nfrom numba.core.caching import IndexDataCacheFile\n"
    code += "def full(*_): raise OSError(28, os.strerror(28))\n"
    code += "IndexDataCacheFile._save_data = full\n"
    assert run(tmp_path, code + CODE, NUMBA_CACHE_DIR=str(tmp_path)) == ["2.0", "1"]


TRAIN = """
import numpy as np
from mlpkit import MLP, Adam, Batches, CrossEntropy, fit
from mlpkit_backends import load
backend, rng = load("numba"), np.random.default_rng(0)
split = Batches.of(backend, rng.standard_normal((640, 60)), rng.integers(0, 10, 640), "float32")
model = MLP((60, 50, 10), 0.05, seed=1, dtype="float32", backend=backend)
loss = CrossEntropy(backend=backend)
fit(model, loss, Adam(model, 5e-3), split, split, batch_size=32, epochs=5, seed=1)
for p in model.net.params.values():
    print(p.tobytes().hex())
"""


def test_the_first_run_has_the_bits_of_the_next(tmp_path: Path) -> None:
    one, two = (run(tmp_path, TRAIN, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert one == two
