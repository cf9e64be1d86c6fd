"""`fixgrad compare`: the machine first, every platform with its source, and times at published rates."""

import json
from pathlib import Path

import pytest

from fixgrad.cli.app import main
from fixgrad.machine.platforms import Function, load_platforms

SMALL = ["compare", "--model", "digits", "--density", "0.5"]


def test_every_platform_stands_beside_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["name"] == "kcu1500"
    assert found["machine"]["kind"] == "simulated"
    assert found["machine"]["training"]["gops"] > found["machine"]["training"]["gops_per_watt"] > 0
    assert [row["key"] for row in found["platforms"]] == [platform.key for platform in load_platforms()]
    assert all(row["source"] and row["kind"] in ("measured", "simulated", "published") for row in found["platforms"])


def test_times_follow_from_rates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--batch", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ours = found["machine"]
    ops = ours["training"]["gops"] * 1e9 * ours["training"]["seconds_per_image"]
    times = {row["key"]: row for row in found["at_published_rates"]}
    assert times.keys() == {platform.key for platform in load_platforms()}
    for platform in load_platforms():
        time = times[platform.key]
        if platform.gops is None:
            assert time["seconds_per_image"] is None
            continue
        work = ops if platform.function is Function.TRAINING else ops / 3
        assert time["seconds_per_image"] == pytest.approx(work / (platform.gops * 1e9))
        assert time["seconds_per_step"] == pytest.approx(16 * time["seconds_per_image"])


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    shown = capsys.readouterr().out
    assert "digits, batch 32, density 0.5, on kcu1500 beside published platforms" in shown
    for word in ("FPDeep", "Titan X", "ESE", "EF-Train", "inference", "training", "not checked at the source"):
        assert word in shown
    assert "…" not in shown


def test_a_machine_without_energy_coefficients(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--machine", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["training"]["watts"] is None


@pytest.mark.slow
def test_without_a_model_it_is_the_talks_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["network"], found["batch"], found["density"]) == ("vgg11", 32, "talk")
    talk = next(row for row in found["platforms"] if row["name"] == "the talk" and row["function"] == "training")
    assert found["machine"]["training"]["gops"] > 1.9 * talk["gops"]


def test_the_page_shows_every_platform_as_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert main(SMALL) == 0
    table, _, _ = capsys.readouterr().out.partition("\nplatform   function")
    lines = [line.rstrip() for line in table.splitlines()]
    first = next(index for index, line in enumerate(lines) if line.startswith("platform ")) + 3  # behind the machine's own rows
    shown = lines[first:]
    assert len(shown) > 2 * len({platform.name for platform in load_platforms()})
    for line in shown:
        assert line in page, line
