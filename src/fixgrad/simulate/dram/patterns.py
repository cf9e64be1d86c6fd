"""Access patterns whose share of the peak bandwidth is known, as lists of transfers.

The shares are data (`reference/*.toml`); `docs/dram.md` shows them beside both models.
"""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

from fixgrad.errors import UsageError
from fixgrad.simulate.dram.address import AddressMap
from fixgrad.simulate.dram.channel import Channel, Fidelity, open_channel
from fixgrad.simulate.dram.standard import DramStandard, load_standard
from fixgrad.simulate.dram.transfer import Transfer

_KIB = 1024


@dataclass(frozen=True, slots=True)
class ReferencePattern:
    """A pattern and its reference share for each address map.

    `kind`: sequential; alternating (copy `size` bytes at a time from one region to another that begins two pages further
    on in the rotation of banks); random (`size` contiguous bytes anywhere, multiples of `size`); stride (one burst every
    `size` bytes).
    """

    kind: str
    size: int
    shares: dict[AddressMap, float]

    @property
    def name(self) -> str:
        size = f"{self.size} B" if self.size < _KIB else f"{self.size // _KIB} KB"
        return self.kind if self.kind == "sequential" else f"{self.kind} {size}"

    def transfers(self, standard: DramStandard, bursts: int) -> Iterator[Transfer]:
        """The pattern as transfers of `bursts` bursts in all."""
        total = bursts * standard.burst_bytes
        if self.kind == "sequential":
            yield Transfer(total)
        elif self.kind == "random":
            yield Transfer(total, run=self.size)
        elif self.kind == "stride":
            yield Transfer(total, run=standard.burst_bytes, stride=self.size)
        elif self.kind == "alternating":
            target = standard.capacity_bytes // 2 + 2 * standard.page_bytes
            for offset in range(0, total // 2, self.size):
                yield Transfer(self.size, address=offset)
                yield Transfer(self.size, write=True, address=target + offset)
        else:
            raise UsageError(f"unknown pattern {self.kind!r}; known are sequential, alternating, random, stride")


def reference_patterns(standard: str = "ddr4_2400") -> tuple[ReferencePattern, ...]:
    """The patterns with a known share for that standard. Raises UsageError if there are none."""
    file = resources.files("fixgrad.simulate.dram") / "reference" / f"{standard}.toml"
    if not file.is_file():
        raise UsageError(f"no reference patterns for the DRAM standard {standard!r}")
    table = tomllib.loads(file.read_text("utf-8"))
    return tuple(
        ReferencePattern(row["kind"], row.get("size", 0), {m: row[m.value] for m in AddressMap if m.value in row})
        for row in table["pattern"]
    )


def share_of_peak(channel: Channel, transfers: Iterator[Transfer]) -> float:
    """Bytes over what the data bus could have moved until the last of them, all requests waiting from the start.

    Whole bursts count: the share says how busy the data bus is.
    """
    for transfer in transfers:
        channel.serve(0.0, transfer)
    moved = channel.totals.bursts * channel.standard.burst_bytes
    return moved / (channel.busy_until * channel.standard.peak_bytes_per_ns)


def measured_share(
    pattern: ReferencePattern,
    fidelity: Fidelity,
    address_map: AddressMap,
    standard: DramStandard | str = "ddr4_2400",
    bursts: int = 100_000,
) -> float:
    """Share of peak that a model gives for a pattern."""
    standard = load_standard(standard) if isinstance(standard, str) else standard
    return share_of_peak(open_channel(standard, fidelity, address_map), pattern.transfers(standard, bursts))


ShareOf = Callable[[ReferencePattern, Fidelity, AddressMap], float]


def comparison_table(patterns: tuple[ReferencePattern, ...], share_of: ShareOf) -> str:
    """Markdown: for each pattern and address map the reference share, both models, and their relative errors."""
    lines = [
        "| address map | pattern | reference | closed form | error | bank model | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for address_map in AddressMap:
        for pattern in patterns:
            if address_map not in pattern.shares:
                continue
            reference = pattern.shares[address_map]
            cells = [address_map.value, pattern.name, f"{reference:g}"]
            for fidelity in Fidelity:
                share = share_of(pattern, fidelity, address_map)
                cells += [f"{share:.3f}", f"{100 * (share / reference - 1):+.1f} %"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
