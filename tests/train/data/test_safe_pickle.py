"""The pickle reader: what every Python wrote is read, and nothing that a pickle names is ever run."""

import contextlib
import io
import os
import pickle
import pickletools
import re
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import DataError
from fixgrad.train.data import safe_pickle
from fixgrad.train.data.safe_pickle import load_plain_pickle

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 6)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """The bytes that Python 2's cPickle and NumPy 1 of that time write, protocol 2, as in the original release."""
    out = io.BytesIO()
    out.write(b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(")
    out.write(b"".join(b"K" + bytes([label]) for label in labels))
    out.write(b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08")
    out.write(b"K\x00\x85U\x01b\x87Rq\x09(K\x01")
    out.write(b"".join(b"J" + side.to_bytes(4, "little") for side in data.shape) + b"\x86")
    out.write(
        b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    )
    out.write(b"K\x00tb\x89T" + data.size.to_bytes(4, "little") + data.tobytes() + b"tb")
    out.write(b"U\x09filenamesq\x0c]q\x0dU\x0ecat_000001.pngau.")
    return out.getvalue()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol_of_python_3(protocol: int, order: str) -> None:
    array = np.array(ARRAY, order=order)
    raw = pickle.dumps({b"data": array, b"labels": [1, 2], "name": "x"}, protocol=protocol)
    loaded = load_plain_pickle(raw, "file")
    assert loaded.keys() == {b"data", b"labels", "name"}
    assert np.array_equal(loaded[b"data"], ARRAY)
    assert loaded[b"data"].dtype == np.uint8
    assert loaded[b"labels"] == [1, 2]


def test_python_2_strings_come_out_as_bytes() -> None:
    raw = python2_batch(ARRAY, [3, 9])
    pickletools.dis(raw, out=io.StringIO())  # the test's own pickle is well formed
    loaded = load_plain_pickle(raw, "file")
    assert np.array_equal(loaded[b"data"], ARRAY)
    assert loaded[b"labels"] == [3, 9]
    assert loaded[b"batch_label"] == b"training batch 1 of 5"
    assert (
        pickle.loads(raw, encoding="bytes")[b"data"].tolist() == ARRAY.tolist()
    )  # as the usual reader has it


def test_names_of_numpy_1_and_2_are_both_known() -> None:
    raw = pickle.dumps(ARRAY, protocol=2)
    one, two = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert (one in raw) != (two in raw)
    other = raw.replace(one, two) if one in raw else raw.replace(two, one)
    assert np.array_equal(load_plain_pickle(other, "file"), ARRAY)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    raw = pickle.dumps({b"data": Calls(os.system, f"touch {victim}")}, protocol=protocol)
    with pytest.raises(
        DataError, match=r"file asks for (posix|nt)\.system, .* refused, nothing of it was run"
    ):
        load_plain_pickle(raw, "file")
    assert not victim.exists()
    pickle.loads(raw)  # the same bytes do their work where they are let
    assert victim.exists()


@pytest.mark.parametrize(
    "payload",
    [
        Calls(eval, "1"),
        Calls(getattr, "a", "upper"),
        Calls(np.load, "file"),
        Calls(np.fromfile, "file"),
        Calls(__import__, "os"),
        OrderedDict(a=1),
        np.float64(1),
        Path("x"),
        {1, 2}.__class__,
        np.random.default_rng(0),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_every_other_name_is_refused(payload: object) -> None:
    with pytest.raises(DataError, match="file asks for "):
        load_plain_pickle(pickle.dumps(payload, protocol=4), "file")


def test_names_behind_allowed_modules_are_refused() -> None:
    # STACK_GLOBAL with a dotted name would walk attributes: numpy.dtype.__class__, _codecs.encode.__self__ ...
    for module, name in (
        ("numpy", "dtype.__class__"),
        ("_codecs", "encode.__self__"),
        ("numpy", "ndarray.tofile"),
    ):
        raw = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
        raw += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        with pytest.raises(DataError, match=re.escape(f"file asks for {module}.{name},")):
            load_plain_pickle(raw, "file")


def test_a_pickle_cannot_change_the_reader() -> None:
    # BUILD sets attributes: on the stand-in for numpy.dtype, this gives its function other defaults.
    raw = b"\x80\x02cnumpy\ndtype\nN}U\x0c__defaults__U\x01x\x85s\x86b."
    with pytest.raises(DataError):
        load_plain_pickle(raw + b"x", "file")
    assert np.array_equal(load_plain_pickle(pickle.dumps(ARRAY, protocol=4), "file"), ARRAY)


@pytest.mark.parametrize("array", [ARRAY.astype(np.int32), ARRAY.astype(np.float32), ARRAY.astype(np.int8)])
@pytest.mark.parametrize("protocol", [2, 5])
def test_other_types_of_array_are_refused(array: np.ndarray, protocol: int) -> None:
    with pytest.raises(DataError, match=f"holds an array of type '{array.dtype.str[1:]}', expected u1"):
        load_plain_pickle(pickle.dumps({b"data": array}, protocol=protocol), "file")


def test_an_array_of_python_objects_is_refused() -> None:
    with pytest.raises(DataError, match="holds an array of type 'O8', expected u1"):
        load_plain_pickle(pickle.dumps(np.array([None]), protocol=2), "file")


@pytest.mark.parametrize("shape", [(4, 7), (4,), (2**62, 4), ()])
def test_a_shape_that_its_bytes_do_not_fill_is_refused(shape: tuple[int, ...]) -> None:
    raw = pickle.dumps(
        Calls(np._core.numeric._frombuffer, ARRAY.tobytes(), np.dtype("u1"), shape, "C"), protocol=4
    )
    with pytest.raises(DataError, match=r"with 24 bytes, expected \d+"):
        load_plain_pickle(raw, "file")


@pytest.mark.parametrize("shape", [(-4, -6), (4.0, 6), [4, 6], "x", None, (True, 24)])
def test_a_shape_that_is_none_is_refused(shape: object) -> None:
    raw = pickle.dumps(
        Calls(np._core.numeric._frombuffer, ARRAY.tobytes(), np.dtype("u1"), shape, "C"), protocol=4
    )
    with pytest.raises(DataError, match=r"holds an array of shape .*, expected sizes"):
        load_plain_pickle(raw, "file")


def test_an_array_that_is_never_filled_is_refused() -> None:
    raw = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R."
    with pytest.raises(DataError, match="holds an array of type None"):
        load_plain_pickle(raw, "file")


def test_a_few_bytes_cannot_claim_gigabytes() -> None:
    for claim in (
        b"Nr\xff\xff\xff\xff",
        b"\x8d" + b"\xff" * 8,
        b"\x8e" + b"\xff" * 7 + b"\x0f",
        b"B\xff\xff\xff\x7f",
    ):
        tracemalloc.start()
        with contextlib.suppress(DataError):
            load_plain_pickle(claim + b".", "file")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_persistent_objects_are_refused() -> None:
    with pytest.raises(DataError, match="refers to an object outside of itself"):
        load_plain_pickle(b"Pfile:///etc/passwd\n.", "file")


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(DataError, match="file has 3 bytes after the end of its pickle"):
        load_plain_pickle(pickle.dumps([1], protocol=4) + b"abc", "file")


def test_too_long_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_PICKLE_BYTES", 10)
    with pytest.raises(DataError, match="file has 11 bytes, more than the 10 of any batch"):
        load_plain_pickle(bytes(11), "file")


@pytest.mark.parametrize("raw", [python2_batch(ARRAY, [1, 2]), pickle.dumps({b"data": ARRAY}, protocol=4)])
def test_cut_anywhere_it_is_refused(raw: bytes) -> None:
    for end in range(len(raw)):
        with pytest.raises(DataError):
            load_plain_pickle(raw[:end], "file")


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_flipped_byte_never_gives_another_error_nor_another_shape(place: int, value: int) -> None:
    raw = bytearray(python2_batch(ARRAY, [1, 2]))
    raw[place % len(raw)] = value
    try:
        loaded = load_plain_pickle(bytes(raw), "file")
    except DataError:
        return
    data = loaded.get(b"data") if isinstance(loaded, dict) else None
    assert not isinstance(data, np.ndarray) or data.dtype == np.uint8


@given(st.binary(max_size=60))
def test_any_bytes_whatever_give_an_object_or_a_data_error(raw: bytes) -> None:
    with contextlib.suppress(DataError):
        load_plain_pickle(raw, "file")
