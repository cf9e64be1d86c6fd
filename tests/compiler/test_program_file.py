"""Program files: equal after a round trip, refused when they are damaged or for something else."""

import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.compiler import Program, check_machine, compile_step, load_program, save_program
from fixgrad.compiler.program_file import _checksum
from fixgrad.errors import DataError
from fixgrad.machine import preset
from fixgrad.machine.encoding import instruction_set_record
from fixgrad.machine.instruction_set import explain_instruction_set
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe

TINY = preset("tiny")


@cache
def compiled(mode: Any = "train") -> Program:
    conv = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=5, kernel=(3, 3), relu=True)
    pool = MaxPool2d(name="pool", inputs=("conv",), window=(2, 2))
    flat = Flatten(name="flat", inputs=("pool",))
    head = Linear(name="head", inputs=("flat",), in_features=20, out_features=3, out_bits=16)
    network = Network("small", (2, 6, 6), 6, (conv, pool, flat, head))
    mask = np.random.default_rng(1).random((3, 20)) < 0.4
    return compile_step(network, {"head.weight": mask}, TINY, 6, Recipe(stored_bits=16), mode=mode, count_padding=True)


@cache
def sample() -> bytes:
    path = Path(mkdtemp()) / "program"
    save_program(compiled(), path)
    return path.read_bytes()


def loaded(data: bytes) -> Program:
    path = Path(mkdtemp()) / "program"
    path.write_bytes(data)
    return load_program(path)


@pytest.mark.parametrize("mode", ["train", "forward"])
def test_a_round_trip_changes_nothing(mode: str, tmp_path: Path) -> None:
    before = compiled(mode)
    save_program(before, tmp_path / "program")
    after = load_program(tmp_path / "program")
    for name in ("machine", "network", "recipe", "batch", "mode", "count_padding", "labels", "schedule", "identity"):
        assert getattr(after, name) == getattr(before, name), name
    for name in ("encoded", "kernel_counts", "taps"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
        assert getattr(after, name).dtype == getattr(before, name).dtype
    assert after.masks.keys() == before.masks.keys()
    assert all(np.array_equal(after.masks[name], mask) for name, mask in before.masks.items())
    for name in ("regions", "entries", "registers"):
        assert getattr(after.layout.table, name) == getattr(before.layout.table, name)
    for name, order in before.layout.table.orders.items():
        assert np.array_equal(after.layout.table.orders[name], order)
    for ours, theirs in zip(before.layout.matrices, after.layout.matrices, strict=True):
        assert np.array_equal(ours.alive, theirs.alive)
        assert ours.block_rows == theirs.block_rows


def test_equal_programs_are_equal_files() -> None:
    again = Path(mkdtemp()) / "program"
    save_program(compiled.__wrapped__(), again)
    ours, theirs = (zipfile.ZipFile(io.BytesIO(data)) for data in (sample(), again.read_bytes()))
    assert {name: ours.read(name) for name in ours.namelist()} == {name: theirs.read(name) for name in theirs.namelist()}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_file_is_refused(data: st.DataObject) -> None:
    whole = sample()
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DataError, match="compile it again"):
        loaded(whole[:length])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found_or_means_nothing(data: st.DataObject) -> None:
    """Some bytes of a zip archive (times, attributes) say nothing about the contents."""
    whole = bytearray(sample())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = loaded(bytes(whole))
    except DataError:
        return
    assert np.array_equal(found.encoded, compiled().encoded)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        loaded(data)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="cannot be read as a program"):
            load_program(path)
    other = tmp_path / "other.npz"
    np.savez(other, weights=np.zeros(3))
    with pytest.raises(DataError, match="it lacks checksum, encoded, header"):
        load_program(other)


def test_pickled_objects_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "program"
    with path.open("wb") as file:
        np.savez(file, header=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        load_program(path)


def resealed(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """The sample with its header and arrays changed, and a checksum that fits."""
    archive = zipfile.ZipFile(io.BytesIO(sample()))
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    header = json.loads(arrays.pop("header").tobytes())
    arrays.pop("checksum")
    change(header, arrays)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    checksum = np.frombuffer(_checksum(text, arrays), np.uint8)
    file = io.BytesIO()
    np.savez(file, header=text, checksum=checksum, **arrays)
    return file.getvalue()


JUNK = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.lists(st.integers(), max_size=2))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_header_of_nonsense_is_refused(data: st.DataObject) -> None:
    """Even if its checksum fits: any one value replaced by another, at any depth."""

    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        place = header
        del header["identity"]  # for other readers: this one takes the machine itself
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(JUNK.filter(lambda value: value != place[key]))

    try:
        found = loaded(resealed(change))
    except DataError:
        return
    assert np.array_equal(found.encoded, compiled().encoded)  # a name, a number in the schedule: nothing that runs


@pytest.mark.parametrize("name", ["encoded", "kernel_counts", "taps", "label", "order/flat", "mask/head.weight"])
def test_arrays_that_do_not_belong_are_refused(name: str) -> None:
    assert np.array_equal(loaded(resealed(lambda header, arrays: None)).encoded, compiled().encoded)
    with pytest.raises(DataError, match="compile it again"):
        loaded(resealed(lambda header, arrays: arrays.update({name: arrays[name][:-1]})))
    with pytest.raises(DataError, match="compile it again"):
        loaded(resealed(lambda header, arrays: arrays.pop(name)))


def test_another_machine_is_told_which_fields_differ() -> None:
    program = loaded(sample())
    check_machine(program, TINY)
    check_machine(program, TINY.with_changes(name="other"))
    with pytest.raises(DataError, match=r"another machine: groups: 4 here, 2 there; compile it for wide$"):
        check_machine(program, TINY.with_changes(name="wide", groups=4))
    memory = preset("u280").memory
    with pytest.raises(DataError, match=r"memory.channels: 8 here, 1 there; .*memory.standard: hbm2 here, ddr4_2400 there"):
        check_machine(program, TINY.with_changes(memory=memory))


def test_another_instruction_set_is_told_which_fields_differ() -> None:
    def narrower(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        fields = header["instruction_set"]["kinds"]["POST"][2]
        field = next(field for field in fields if field[0] == "channels")
        field[1] -= 2

    with pytest.raises(DataError, match=r"POST.channels: field 4 of 12 bits here, field 4 of 10 bits there; compile it again"):
        loaded(resealed(narrower))


def test_differences_of_instruction_sets() -> None:
    record = json.loads(json.dumps(instruction_set_record(TINY)))
    assert explain_instruction_set(record, TINY) == ""
    record["version"] += 1
    del record["kinds"]["LOSS"]
    record["step_parameters"]["shift"][0] += 4
    told = explain_instruction_set(record, TINY)
    version = instruction_set_record(TINY)["version"]
    assert told.startswith(f"version: {version} here, {version + 1} there; LOSS: opcode 7 of post here, none there; ")
    assert told.endswith(" more")
