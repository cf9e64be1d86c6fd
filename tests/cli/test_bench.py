"""`fixgrad bench train`: what it prints, on a small network, and what it refuses."""

import json

import pytest

from fixgrad.cli.app import main

SMALL = ["bench", "train", "--model", "digits", "--batch", "8", "--rounds", "2", "--threads", "1"]
CPU_RATIOS = ("cpu_ratio_to_fp32", "cpu_ratio_to_fp32_sparse", "cpu_ratio_to_fake_quantised")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process a peak of memory."""
    monkeypatch.setattr("fixgrad.train.bench.measure.MEMORY_ROUNDS", 1)


def test_json_holds_ratios_with_their_ranges(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["batch"], found["density"], found["rounds"]) == ("digits", 8, "0.25", 2)
    for key in ("ratio_to_fp32", "ratio_to_fp32_sparse", "ratio_to_fake_quantised", "peak_memory_ratio", *CPU_RATIOS):
        ratio = found[key]
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert found["other_load"] is None or found["other_load"] >= 0
    assert list(found["seconds"]) == list(found["cpu_seconds"]) == ["fp32", "fake_quantised", "fixgrad", "fixgrad_sparse"]
    assert found["peak_bytes"]["fixgrad"]["min"] > 50e6


def test_the_table_has_a_row_for_each(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fixgrad.train.bench.measure.peak_in_a_process", lambda contest, contestant: 100e6)
    monkeypatch.setattr("fixgrad.train.bench.other_load.OtherLoad.cores", lambda self: 1.26)
    assert main([*SMALL, "--density", "none"]) == 0
    heading, columns, *rows, load = capsys.readouterr().out.splitlines()
    assert load.startswith("other programs kept 1.3 processors busy meanwhile: ")
    assert heading.startswith("digits, batch 8: ")
    assert columns.split() == ["training", "step", "time", "of", "fp32", "CPU", "time", "of", "fp32", "peak", "memory", "of", "fp32"]
    assert [row.split("  ")[0] for row in rows] == ["fp32 PyTorch, channels last", "fake-quantised fp32", "fixgrad, dense"]
    assert "1.00 (1.00 to 1.00)" in rows[0]
    assert "100 MB (100 to 100)" in rows[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "vgg99"], "model 'vgg99' is unknown"),
        (["--density", "2"], "density"),
        (["--path", "int4"], "path 'int4' is unknown"),
        (["--device", "cuda:x"], "device 'cuda:x' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *options]) == 2
    assert message in capsys.readouterr().err
