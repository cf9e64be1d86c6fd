"""`fixgrad rtl`: what it refuses, what it prints, and what its table says; the tools run in the tests of synthesis."""

import json
from pathlib import Path

import pytest

from fixgrad.cli import rtl
from fixgrad.cli.app import main
from fixgrad.gateware.synthesis.place import Placed
from fixgrad.gateware.synthesis.report import Row, SynthesisReport
from fixgrad.gateware.synthesis.technology import ECP5, ULTRASCALE, Counts
from fixgrad.machine import Machine, talk
from fixgrad.machine.presets import ECP5_85F, FORMAL, KCU1500

SMALL = Counts(lut=1000, lut_ram=24, ff=2000, dsp=1, blocks=1.5)
PLACED = Placed(41.5, 50.0, {"TRELLIS_COMB": (60_000, 83_640)}, 0, 1234.0, 1, ("yosys 1",), 2_000_000)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Synthesis of this many of one part, instead of Yosys's."""
    asked: dict[str, object] = {"count": 3}

    def made(machine: Machine, folder: Path | None, seed: int) -> tuple[SynthesisReport, Placed | None]:
        asked.update(folder=folder, seed=seed)
        technology = ECP5 if machine is ECP5_85F else ULTRASCALE
        return SynthesisReport(machine, technology, (Row("PE", int(str(asked["count"])), SMALL),)), PLACED if folder else None

    monkeypatch.setattr(rtl, "_made", made)
    return asked


def test_the_talks_row_stands_beside(counted: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rtl", "synth", "--machine", "kcu1500", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"] == {"lut": 3000, "lut_ram": 72, "ff": 6000, "dsp": 3, "blocks": 4.5}
    assert found["talk"] == {"lut": 199_111, "ff": 249_122, "blocks": 1_060, "dsp": 1_030}
    assert found["limits"]["LUT"] == {"used": 3072, "available": 199_111}
    assert found["limits"]["DSP"]["available"] == 1_100
    assert found["within_limits"]
    assert main(["rtl", "synth", "--machine", "kcu1500"]) == 0
    shown = capsys.readouterr().out
    assert "199,111" in shown
    assert "not placed and routed" in shown
    assert "196,039 left" in shown


def test_check_fails_above_a_limit(counted: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    counted["count"] = 195
    assert main(["rtl", "synth", "--machine", "kcu1500", "--check"]) == rtl.EXCEEDED
    assert "exceeded by 569" in capsys.readouterr().out
    assert main(["rtl", "synth", "--machine", "kcu1500"]) == 0


def test_an_ecp5_machine_is_placed(counted: dict[str, object], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["rtl", "synth", "--machine", "ecp5-85f", "-o", str(tmp_path), "--seed", "7"]) == 0
    shown = capsys.readouterr().out
    assert (counted["folder"], counted["seed"]) == (tmp_path, 7)
    assert "Fmax 41.5 MHz by nextpnr; 50 MHz not met" in shown
    assert main(["rtl", "synth", "--machine", "ecp5-85f", "--no-place", "--json"]) == 0
    assert counted["folder"] is None
    assert "placed" not in json.loads(capsys.readouterr().out)


def test_what_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["rtl", "synth", "--machine", "kcu1500", "-o", str(tmp_path)]) == 2
    assert "-o is for a bitstream" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["rtl", "emit", "--machine", "formal", "-o", str(tmp_path / "file")]) == 2
    assert "is a file: choose a folder" in capsys.readouterr().err


def test_a_machine_without_a_device_has_no_limits() -> None:
    report = SynthesisReport(FORMAL, ULTRASCALE, (Row("PE", 1, SMALL),))
    assert (report.limits, report.limits_of) == ((), "none")
    assert report.to_dict()["talk"] is None
    assert [limit.available for limit in SynthesisReport(ECP5_85F, ECP5, ()).limits] == [83_640, 83_640, 208, 156]
    assert talk.LIMITS[:3] == talk.USED[:3]
    assert SynthesisReport(KCU1500, ULTRASCALE, ()).estimate.dsp == 1_049
