"""Densities by layer: the talk's table, a number, a file."""

from pathlib import Path

import pytest

from fixgrad.errors import DataError, FixgradError, UsageError
from fixgrad.sparse import TALK_DENSITIES, densities_for

FC = ("fc", False, (10, 32))
CONV = ("conv", True, (8, 4, 3, 3))
VGG11 = [(name, name.startswith("conv"), (8, 4, 3, 3) if name.startswith("conv") else (8, 4)) for name in TALK_DENSITIES]


def test_talk_table_is_utilisation_times_peak_over_rate() -> None:
    """Slide "Performance breakdown", FF: utilisation (of 512 GOP/s) over equivalent GOP/s, to one digit."""
    rows = {
        "conv1": (0.27, 154.4),
        "conv2": (0.95, 812.2),
        "conv3_1": (0.97, 712.4),
        "conv3_2": (0.98, 839.7),
        "conv4_1": (0.97, 992.3),
        "conv4_2": (0.97, 1658.4),
        "conv5_1": (0.32, 1651.7),
        "conv5_2": (0.32, 1652.7),
        "dense6": (0.01, 51.0),
        "dense7": (0.01, 51.0),
        "dense8": (0.001, 4.4),
    }
    assert list(rows) == list(TALK_DENSITIES)
    for name, (utilisation, rate) in rows.items():
        assert round(utilisation * 512 / rate, 1) == TALK_DENSITIES[name]


def test_talk_gives_its_table_in_the_order_of_the_layers() -> None:
    assert list(densities_for("talk", VGG11[::-1]).items()) == list(TALK_DENSITIES.items())[::-1]


@pytest.mark.parametrize("layers", [VGG11[:-1], [*VGG11, FC], [CONV, FC], []])
def test_talk_is_refused_for_other_layers(layers: list[tuple[str, bool, tuple[int, ...]]]) -> None:
    with pytest.raises(UsageError) as refused:
        densities_for("talk", layers)
    text = str(refused.value)
    assert f"the 11 layers of the talk's VGG-11 ({', '.join(TALK_DENSITIES)})" in text
    assert f"this network has {len(layers)}" in text
    assert "give a number with 0 < density <= 1, or a JSON or CSV file" in text
    assert "\n" not in text


@pytest.mark.parametrize("spec", [0.25, "0.25", " .25 ", 1, "1"])
def test_a_number_is_for_every_layer(spec: float | str) -> None:
    assert densities_for(spec, [CONV, FC]) == {"conv": float(spec), "fc": float(spec)}


@pytest.mark.parametrize("spec", [0, "0", -1, 1.5, "nan", "inf", "1e999", 10**400])
def test_an_impossible_number_names_layer_value_and_limit(spec: float | str) -> None:
    with pytest.raises(UsageError, match=r"^layer conv: density \S+ is not a number with 0 < density <= 1$"):
        densities_for(spec, [CONV, FC])


@pytest.mark.parametrize("spec", ["tlak", "dens.txt", "", True, None, [0.5]])
def test_what_is_neither_says_what_may_be_given(spec: object) -> None:
    with pytest.raises(UsageError, match=r"give 'talk', a number with 0 < density <= 1, or a \.json or \.csv file"):
        densities_for(spec, [CONV])  # type: ignore[arg-type]


def test_layers_must_differ_in_name_and_have_the_axes_of_their_kind() -> None:
    with pytest.raises(UsageError, match="layer fc appears twice"):
        densities_for(0.5, [FC, FC])
    with pytest.raises(UsageError, match=r"layer conv: weight \[8, 4\] has 2 axes"):
        densities_for(0.5, [("conv", True, (8, 4))])


FILES = {
    "a.json": '{"fc": 1, "conv": 0.5}',
    "bom.json": '\ufeff{"fc": 1, "conv": 0.5}',
    "a.csv": "conv,0.5\nfc,1\n",
    "heading.csv": "name,density\r\n\r\n fc , 1 \r\nconv,5e-1\r\n",
    "UPPER.CSV": "conv,.5\nfc,1.0",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("as_path", [Path, str])
def test_a_file_names_every_layer(name: str, as_path: type, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8", newline="")
    found = densities_for(as_path(path), [CONV, FC])
    assert list(found.items()) == [("conv", 0.5), ("fc", 1.0)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"conv": 0.5}', r"no density for 1 of 2 layers \(fc\)"),
        ("a.json", '{"conv": 0.5, "fc": 1, "x": 1}', r"1 of 3 names are no layer of this network \(x\)"),
        ("a.json", '{"conv": 0.5, "fc": 0}', r"layer fc: density 0 is not a number with 0 < density <= 1"),
        ("a.json", '{"conv": 0.5, "fc": NaN}', r"layer fc: density nan is not"),
        ("a.json", '{"conv": 0.5, "fc": "1"}', r"layer fc: density '1' is not"),
        ("a.json", '{"conv": 0.5, "fc": true}', r"layer fc: density True is not"),
        ("a.json", '{"conv": 0.5, "conv": 1}', r"layer conv is named twice"),
        ("a.json", '{"conv": 0.5,\n "fc" 1}', r"line 2 is not JSON"),
        ("a.json", "[0.5, 1]", r"found a list"),
        ("a.json", "[" * 100_000, r"not JSON"),
        ("a.json", '{"fc": ' + "9" * 5000 + "}", r"not JSON"),
        ("a.json", "", r"line 1 is not JSON"),
        ("a.csv", "", r"no density for 2 of 2 layers"),
        ("a.csv", "conv,0.5\nfc", r"line 2 has 1 cells; expected 2: name,density"),
        ("a.csv", "conv,0.5\nfc,much", r"line 2, layer fc: density 'much' is not a number"),
        ("a.csv", "conv,0.5\nconv,0.5\nfc,1", r"layer conv is named twice"),
        ("a.csv", "conv,0.5\nfc,2", r"layer fc: density 2\.0 is not a number with 0 < density <= 1"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        densities_for(path, [CONV, FC])
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"conv,\xff\xfe")
    for name, reason in (
        ("none.json", "No such file"),
        ("folder.json", "directory"),
        ("binary.csv", "byte 5"),
    ):
        with pytest.raises(DataError, match=reason) as refused:
            densities_for(tmp_path / name, [CONV])
        assert str(tmp_path / name) in str(refused.value)
    with pytest.raises(FixgradError, match="cannot read"):
        densities_for("nul\0.json", [CONV])
