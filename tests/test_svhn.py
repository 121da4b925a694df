"""SVHN's files, and whether they are. Fetching them: torture/test_downloads.py."""

from pathlib import Path

from mlpkit.svhn import FILES, RemoteFile, verify


def test_the_published_files() -> None:
    assert [(file.name, file.size) for file in FILES] == [
        ("train_32x32.mat", 182040794),
        ("test_32x32.mat", 64275384),
    ]
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in FILES)


def test_verify_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(b"abc")
    (tmp_path / "short").write_bytes(b"ab")
    (tmp_path / "other").write_bytes(b"abd")
    (tmp_path / "folder").mkdir()
    # The hash of "abc" in FIPS 180-2, appendix B.1.
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    names = ("right", "short", "other", "folder", "none")
    states = verify(tmp_path, [RemoteFile(name, 3, known) for name in names])
    assert list(states) == list(names)
    assert states["right"] == "ok"
    assert states["short"].startswith("has 2 bytes, expected 3")
    assert states["other"].startswith("has sha256 ")
    assert f"expected {known}" in states["other"]
    assert states["folder"].startswith(f"missing from {tmp_path}")
    assert states["none"].startswith(f"missing from {tmp_path}")
    assert all(s.endswith(": mlpkit data fetch") for n, s in states.items() if n != "right")
    assert set(verify(tmp_path / "nowhere").values()) == {
        f"missing from {tmp_path / 'nowhere'}: mlpkit data fetch"
    }
