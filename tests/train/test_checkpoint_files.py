"""Sealed files: what is damaged is refused, wherever the damage is."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import DataError
from fixgrad.train.checkpoint import read_checkpoint
from fixgrad.train.sealed_file import read_sealed, write_atomically, write_sealed

ARRAYS = {
    "stored/conv1.weight": np.arange(-6, 6, dtype=np.int32).reshape(2, 6),
    "mask/conv1.weight": np.array([[True, False, True]]),
    "weight/dense": np.linspace(-1, 1, 5, dtype=np.float32),
    "empty": np.zeros((0, 3), np.int32),
}
VALUES = {"epoch": 3, "name": "Übung", "scales": {"conv1": [1, -2]}, "loss": 0.1 + 0.2}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "epoch-0003.safetensors"
    write_sealed(path, ARRAYS, VALUES)
    return path


def test_what_is_written_is_read(sealed: Path) -> None:
    found = read_sealed(sealed)
    assert found.values == VALUES
    assert set(found.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)


def test_equal_contents_are_equal_bytes(sealed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    write_sealed(again, dict(reversed(ARRAYS.items())), dict(reversed(VALUES.items())))
    assert again.read_bytes() == sealed.read_bytes()


def test_arrays_that_are_not_contiguous_are_written_by_value(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T
    write_sealed(tmp_path / "a", {"a": array}, {})
    assert np.array_equal(read_sealed(tmp_path / "a").arrays["a"], array)


def test_a_file_cut_at_any_byte_is_refused(sealed: Path, tmp_path: Path) -> None:
    content = sealed.read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut\.safetensors is damaged"):
            read_sealed(path)


def test_any_flipped_bit_is_found(sealed: Path, tmp_path: Path) -> None:
    content = sealed.read_bytes()
    path = tmp_path / "flipped.safetensors"
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"flipped\.safetensors (is damaged|was altered)"):
            read_sealed(path)


def test_bytes_behind_the_end_are_found(sealed: Path, tmp_path: Path) -> None:
    path = tmp_path / "longer.safetensors"
    path.write_bytes(sealed.read_bytes() + b"\0")
    with pytest.raises(DataError, match="is damaged"):
        read_sealed(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_whatever_are_refused_with_an_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "whatever.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_sealed(path)


def test_a_checksum_that_was_recomputed_does_not_help_a_false_structure(tmp_path: Path) -> None:
    path = tmp_path / "epoch-0001.safetensors"
    for values in ({}, {"format_version": 99}, {"format_version": 1, "epoch": 1}, {"format_version": 1, "plan": 3}):
        write_sealed(path, ARRAYS, values)
        with pytest.raises(DataError, match=r"epoch-0001\.safetensors is no checkpoint of this version"):
            read_checkpoint(path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.int32)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="is damaged"):
        read_sealed(tmp_path / "other.safetensors")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_sealed(tmp_path / "missing")
    with pytest.raises(DataError, match="cannot be read"):
        read_sealed(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fixgrad.train.sealed_file.os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_sealed(tmp_path / "nan", {}, {"loss": float("nan")})
    assert not (tmp_path / "nan").exists()


def test_the_file_is_plain_safetensors_that_other_programs_read(sealed: Path) -> None:
    from safetensors import safe_open

    with safe_open(sealed, "numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        entry = json.loads(file.metadata()["fixgrad"])
    assert json.loads(entry["values"]) == VALUES
    assert len(entry["sha256"]) == 64
