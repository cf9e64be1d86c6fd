"""The share of kernels or elements that each layer keeps: the talk's table, a number, or the user's file."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType

from fixgrad.errors import DataError, UsageError
from fixgrad.sparse.criteria import check_density

TALK_DENSITIES: Mapping[str, float] = MappingProxyType(
    {
        "conv1": 0.90,
        "conv2": 0.60,
        "conv3_1": 0.70,
        "conv3_2": 0.60,
        "conv4_1": 0.50,
        "conv4_2": 0.30,
        "conv5_1": 0.10,
        "conv5_2": 0.10,
        "dense6": 0.10,
        "dense7": 0.10,
        "dense8": 0.10,
    }
)
"""VGG-11 of the talk, layer -> share kept. Derived, not stated there: utilisation * 512 / (GOP/s) of its
slide "Performance breakdown", because its GOP/s count the skipped work as done, on a machine of 512 GOP/s."""

Layer = tuple[str, bool, Sequence[int]]
"""(name, is_conv, weight shape): shape [out, in, kh, kw] for CONV, [out, in] for FC."""

DensitySpec = float | str | PathLike[str]
WHAT_TO_GIVE = "give 'talk', a number with 0 < density <= 1, or a .json or .csv file"
NAMES_SHOWN = 4


def densities_for(spec: DensitySpec, layers: Iterable[Layer]) -> dict[str, float]:
    """The density of each layer, in the order of `layers`.

    `spec` is 'talk' (the talk's VGG-11; refused for a network with other layers), a number for every layer
    (as a number or as text), or the path of a file that names every layer: JSON `{"conv1": 0.9, ...}`, or CSV
    with a line `name,density` per layer (a heading of those two words may stand above).

    Raises `UsageError` for a request that makes no sense, `DataError` for a file that is missing or damaged.
    """
    names = _checked_names(layers)
    number = _as_number(spec)
    if number is not None:
        return {name: check_density(number, name) for name in names}
    if spec == "talk":
        return _talk(names)
    if isinstance(spec, str | PathLike):
        return _from_file(Path(fspath(spec)), names)
    raise UsageError(f"density {spec!r}: {WHAT_TO_GIVE}")


def _checked_names(layers: Iterable[Layer]) -> list[str]:
    names: list[str] = []
    for name, is_conv, shape in layers:
        axes = 4 if is_conv else 2
        if len(shape) != axes:
            kind = "CONV [out, in, kh, kw]" if is_conv else "FC [out, in]"
            raise UsageError(f"layer {name}: weight {list(shape)} has {len(shape)} axes; a weight is {kind}")
        if name in names:
            raise UsageError(f"layer {name} appears twice; densities are given by name, so names must differ")
        names.append(name)
    return names


def _as_number(spec: DensitySpec) -> float | None:
    if isinstance(spec, bool):
        raise UsageError(f"density {spec}: {WHAT_TO_GIVE}")
    if isinstance(spec, PathLike):
        return None
    try:
        return float(spec)
    except OverflowError:  # an integer beyond float64
        return float("inf")
    except (TypeError, ValueError):
        return None


def _talk(names: list[str]) -> dict[str, float]:
    missing, unknown = _compare(TALK_DENSITIES, names)
    if missing or unknown:
        raise UsageError(
            f"density 'talk' is for the {len(TALK_DENSITIES)} layers of the talk's VGG-11 "
            f"({', '.join(TALK_DENSITIES)}), but this network has {len(names)}: {_shown(names)}; "
            f"give a number with 0 < density <= 1, or a JSON or CSV file of name and density"
        )
    return {name: TALK_DENSITIES[name] for name in names}


def _from_file(path: Path, names: list[str]) -> dict[str, float]:
    if path.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"density {str(path)!r}: {WHAT_TO_GIVE}")
    found = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    missing, unknown = _compare(found, names)
    if missing:
        raise DataError(
            f"{path}: no density for {len(missing)} of {len(names)} layers ({_shown(missing)}); "
            f"name every layer, 1.0 keeps it whole"
        )
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of {len(found)} names are no layer of this network ({_shown(unknown)}); "
            f"its {len(names)} layers are {', '.join(names)}"
        )
    try:
        return {name: check_density(found[name], name) for name in names}
    except UsageError as error:
        raise DataError(f"{path}: {error}") from error


def _compare(given: Iterable[str], names: list[str]) -> tuple[list[str], list[str]]:
    """(layers without a density, densities without a layer)."""
    known = set(given)
    return [name for name in names if name not in known], sorted(known - set(names))


def _shown(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot read the densities: {reason}") from error


def _read_json(path: Path) -> dict[str, object]:
    def refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return _unique(path, pairs)

    try:
        found = json.loads(_read_text(path), object_pairs_hook=refuse_repeats)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno} is not JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f'{path}: found a {type(found).__name__}, expected {{"layer": density, ...}}')
    return found


def _read_csv(path: Path) -> dict[str, object]:
    pairs: list[tuple[str, object]] = []
    try:
        for number, row in enumerate(csv.reader(_read_text(path).splitlines()), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (not pairs and cells == ["name", "density"]):
                continue
            if len(cells) != 2:
                raise DataError(f"{path}: line {number} has {len(cells)} cells; expected 2: name,density")
            pairs.append((cells[0], _cell_as_number(path, number, cells)))
    except csv.Error as error:
        raise DataError(f"{path}: not CSV: {error}") from error
    return _unique(path, pairs)


def _cell_as_number(path: Path, line: int, cells: list[str]) -> float:
    name, text = cells
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: line {line}, layer {name}: density {text!r} is not a number") from None


def _unique(path: Path, pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, density in pairs:
        if name in found:
            raise DataError(f"{path}: layer {name} is named twice; give it one density")
        found[name] = density
    return found
