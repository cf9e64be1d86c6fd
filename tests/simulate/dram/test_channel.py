"""The interface that both fidelities share."""

import subprocess
import sys
from itertools import pairwise

import pytest

from fixgrad.errors import UsageError
from fixgrad.simulate.dram import Clock, Fidelity, Transfer, open_channel, transfer_cycles, transfer_ns

both = pytest.mark.parametrize("fidelity", Fidelity)


@both
def test_a_first_access_costs_its_latency(fidelity: Fidelity) -> None:
    channel = open_channel("ddr4_2400", fidelity)
    served = channel.serve(1000.0, Transfer(64))
    assert served.start == 1000.0
    assert 70 <= served.first_data - 1000.0 <= 110
    assert 0 <= served.end - served.first_data < 3.0  # closed forms reserve the activate slot behind it
    assert channel.totals.row_misses == 1


@both
def test_transfers_are_served_in_order_and_do_not_overlap(fidelity: Fidelity) -> None:
    channel = open_channel("ddr4_2400", fidelity)
    served = [channel.serve(i * 100.0, Transfer(4096, i % 3 == 0, i * 4096)) for i in range(200)]
    for before, after in pairwise(served):
        assert after.end > before.end
        assert after.first_data > before.first_data
    assert all(s.start <= s.first_data <= s.end for s in served)


@both
def test_latency_is_hidden_behind_other_traffic(fidelity: Fidelity) -> None:
    """Ten transfers asked for at once take as long as one of the same bytes, but for a few clocks."""
    split, whole = open_channel("ddr4_2400", fidelity), open_channel("ddr4_2400", fidelity)
    for i in range(10):
        end = split.serve(0.0, Transfer(16384, address=i * 16384)).end
    assert end == pytest.approx(whole.serve(0.0, Transfer(163_840)).end, rel=0.01)


@both
def test_an_idle_gap_is_not_busy(fidelity: Fidelity) -> None:
    channel = open_channel("ddr4_2400", fidelity)
    first = channel.serve(0.0, Transfer(4096))
    busy = channel.totals.busy_ns
    second = channel.serve(1e6, Transfer(4096))
    assert second.start == 1e6
    assert second.end - 1e6 == pytest.approx(first.end, rel=0.1)
    assert channel.totals.busy_ns == pytest.approx(2 * busy, rel=0.1)


@both
def test_totals(fidelity: Fidelity) -> None:
    channel = open_channel("ddr4_2400", fidelity)
    for i in range(100):
        channel.serve(0.0, Transfer(65536, i % 2 == 1, i * 65536))
    totals = channel.totals
    assert (totals.transfers, totals.bursts) == (100, 102_400)
    assert (totals.bytes_read, totals.bytes_written, totals.bytes) == (3_276_800, 3_276_800, 6_553_600)
    assert 95 <= totals.turnarounds <= 105
    assert totals.refresh_ns / totals.busy_ns == pytest.approx(0.0485, abs=0.006)
    # 16 rows hold 128 KB, which is one read and one write; every refresh closes them, which closed forms do not count.
    refreshes = totals.refresh_ns / 350 if fidelity is Fidelity.BANK_LEVEL else 0
    assert totals.row_misses == pytest.approx(100 * 16 / 2 + 16 * refreshes, rel=0.05)
    assert channel.last_write is True
    assert channel.busy_until == pytest.approx(totals.busy_ns, rel=0.01)


@both
def test_a_change_of_direction_costs(fidelity: Fidelity) -> None:
    """64 bursts each way: about 21 clocks a pair, tWTR_S as the other groups are free."""
    ends = []
    for alternate in (False, True):
        channel = open_channel("ddr4_2400", fidelity)
        ends.append(max(channel.serve(0.0, Transfer(4096, alternate and i % 2 == 1, i * 4096)).end for i in range(400)))
    lost = (ends[1] - ends[0]) * 1.2 / 200
    assert 15 <= lost <= 35


@both
def test_the_same_calls_give_the_same_times(fidelity: Fidelity) -> None:
    def run() -> list[float]:
        channel = open_channel("hbm2", fidelity)
        return [channel.serve(i * 10.0, Transfer(300 + i, i % 4 == 0, i * 5000)).end for i in range(300)]

    assert run() == run()


def test_the_two_agree_on_a_step_like_mixture() -> None:
    """Loads of 8 KB tiles, stores of 2 KB, strided weight rows: total time within 3 %."""
    ends = []
    for fidelity in Fidelity:
        channel = open_channel("ddr4_2400", fidelity)
        for i in range(400):
            channel.serve(0.0, Transfer(8192, address=i * 8192))
            channel.serve(0.0, Transfer(2048, True, (1 << 30) + i * 2048))
            channel.serve(0.0, Transfer(4096, address=(1 << 31) + i * 512, run=512, stride=65536))
        ends.append(channel.busy_until)
    assert ends[0] == pytest.approx(ends[1], rel=0.03)


def test_a_bank_level_channel_is_one_schedule() -> None:
    """Served transfer by transfer or in one piece, the last data come at the same clock."""
    whole, split = (open_channel("ddr4_2400", Fidelity.BANK_LEVEL) for _ in range(2))
    for i in range(50):
        end = split.serve(0.0, Transfer(4096, address=i * 4096)).end
    assert end == whole.serve(0.0, Transfer(50 * 4096)).end


@pytest.mark.parametrize("mhz", [50.0, 250.0, 300.0, 1200.0])
def test_clock(mhz: float) -> None:
    clock = Clock(mhz)
    for cycles in (0, 1, 7, 10**6, 10**9):
        assert clock.cycles(clock.ns(cycles)) == cycles
        assert clock.cycles(clock.ns(cycles) + 0.01) == cycles + 1


def test_transfer_cycles() -> None:
    """One cycle of 250 MHz is 4 ns."""
    transfer = Transfer(4096)
    ns = transfer_ns(transfer, "ddr4_2400")
    assert transfer_cycles(transfer, "ddr4_2400", Clock(250.0)) == -int(-ns // 4)
    with pytest.raises(UsageError, match="a clock of 0 MHz"):
        Clock(0)


def test_closed_forms_do_not_import_numba() -> None:
    code = (
        "import sys; from fixgrad.simulate.dram import open_channel, Transfer;"
        "open_channel('ddr4_2400').serve(0.0, Transfer(64)); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
