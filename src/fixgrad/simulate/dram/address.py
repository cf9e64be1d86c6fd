"""Address maps: from a byte address to rank, bank group, bank, row and column, and back."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from fixgrad.errors import UsageError
from fixgrad.simulate.dram.standard import DramStandard

Integers = npt.NDArray[np.int64]


class AddressMap(StrEnum):
    """Which bits of the address lie just above the offset inside a burst.

    COLUMN_LOWEST: row | rank | bank | bank group | column. A page is contiguous; the next page is in the next group.
    BANK_GROUP_LOWEST: row | rank | column | bank | bank group. Neighbouring bursts are in different banks.
    """

    COLUMN_LOWEST = "column-lowest"
    BANK_GROUP_LOWEST = "bank-group-lowest"


_FIELDS_FROM_LOWEST = {
    AddressMap.COLUMN_LOWEST: ("column", "bank_group", "bank", "rank", "row"),
    AddressMap.BANK_GROUP_LOWEST: ("bank_group", "bank", "column", "rank", "row"),
}


@dataclass(frozen=True, slots=True)
class Location:
    """Coordinates of bursts: arrays of equal shape. `column` counts bursts inside the page, not words."""

    rank: Integers
    bank_group: Integers
    bank: Integers
    row: Integers
    column: Integers

    def flat_bank(self, standard: DramStandard) -> Integers:
        """Index of the bank in the channel: rank, then bank group, then bank."""
        group = self.rank * standard.bank_groups + self.bank_group
        return group * standard.banks_per_group + self.bank


def _sizes(standard: DramStandard) -> dict[str, int]:
    return {
        "column": standard.bursts_per_page,
        "bank_group": standard.bank_groups,
        "bank": standard.banks_per_group,
        "rank": standard.ranks,
        "row": standard.rows,
    }


def decode(addresses: Integers, address_map: AddressMap, standard: DramStandard) -> Location:
    """Coordinates of the bursts that hold the byte `addresses` (any shape, int64).

    Raises UsageError for an address outside the channel.
    """
    addresses = np.asarray(addresses, dtype=np.int64)
    if addresses.size and (addresses.min() < 0 or addresses.max() >= standard.capacity_bytes):
        bad = int(addresses.min() if addresses.min() < 0 else addresses.max())
        raise UsageError(
            f"address {bad:#x} is outside {standard.name}, which holds {standard.capacity_bytes:#x} bytes a channel"
        )
    rest = addresses // standard.burst_bytes
    sizes = _sizes(standard)
    parts: dict[str, Integers] = {}
    for field in _FIELDS_FROM_LOWEST[address_map]:
        rest, parts[field] = np.divmod(rest, sizes[field])
    return Location(**parts)


def encode(location: Location, address_map: AddressMap, standard: DramStandard) -> Integers:
    """Byte addresses of the first byte of each burst: the inverse of `decode`."""
    sizes = _sizes(standard)
    burst = np.zeros_like(location.row)
    for field in reversed(_FIELDS_FROM_LOWEST[address_map]):
        burst = burst * sizes[field] + getattr(location, field)
    return burst * standard.burst_bytes
