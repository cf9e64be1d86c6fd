"""Address maps against bit fields written out by hand, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixgrad.errors import UsageError
from fixgrad.simulate.dram import AddressMap, load_standard
from fixgrad.simulate.dram.address import decode, encode

DDR4 = load_standard("ddr4_2400")
ADDRESSES = np.array([0, 64, 8192, 3 * 8192 + 65, (1 << 33) - 1], dtype=np.int64)


def test_column_lowest() -> None:
    """Row 16 bits, bank 2, bank group 2, column 7, offset 6."""
    place = decode(ADDRESSES, AddressMap.COLUMN_LOWEST, DDR4)
    assert place.column.tolist() == [0, 1, 0, 1, 127]
    assert place.bank_group.tolist() == [0, 0, 1, 3, 3]
    assert place.bank.tolist() == [0, 0, 0, 0, 3]
    assert place.row.tolist() == [0, 0, 0, 0, 65535]
    assert place.flat_bank(DDR4).tolist() == [0, 0, 4, 12, 15]


def test_bank_group_lowest() -> None:
    """Row 16 bits, column 7, bank 2, bank group 2, offset 6."""
    place = decode(ADDRESSES, AddressMap.BANK_GROUP_LOWEST, DDR4)
    assert place.bank_group.tolist() == [0, 1, 0, 1, 3]
    assert place.bank.tolist() == [0, 0, 0, 0, 3]
    assert place.column.tolist() == [0, 0, 8, 24, 127]
    assert place.row.tolist() == [0, 0, 0, 0, 65535]


@pytest.mark.parametrize("address_map", AddressMap)
@pytest.mark.parametrize("name", ["ddr4_2400", "hbm2", "sdr_133"])
@given(data=st.data())
def test_encode_is_the_inverse(name: str, address_map: AddressMap, data: st.DataObject) -> None:
    standard = load_standard(name)
    last = standard.capacity_bytes // standard.burst_bytes - 1
    bursts = data.draw(st.lists(st.integers(0, last), min_size=1, max_size=20))
    addresses = np.array(bursts, dtype=np.int64) * standard.burst_bytes
    assert (encode(decode(addresses, address_map, standard), address_map, standard) == addresses).all()


def test_addresses_outside_are_refused() -> None:
    with pytest.raises(UsageError, match="0x200000000 is outside ddr4_2400, which holds 0x200000000 bytes"):
        decode(np.array([1 << 33]), AddressMap.COLUMN_LOWEST, DDR4)
    with pytest.raises(UsageError, match="-0x1 is outside"):
        decode(np.array([5, -1]), AddressMap.COLUMN_LOWEST, DDR4)
