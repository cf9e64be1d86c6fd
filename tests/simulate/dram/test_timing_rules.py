"""The scheduler obeys every timing rule, and is not a clock slower than the rule asks."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fixgrad.simulate.dram import AddressMap, DramStandard, load_standard
from fixgrad.simulate.dram.address import Location, encode
from fixgrad.simulate.dram.bank_level import Command, Schedule, schedule

Check = Callable[[DramStandard, list[Command]], None]
Burst = tuple[int, int, int, int, int]  # arrival, bank group, bank, row, write

BASE = load_standard("ddr4_2400")


def with_timing(standard: DramStandard, **clocks: int) -> DramStandard:
    return replace(standard, timing=standard.timing._replace(**clocks))


def serve(standard: DramStandard, bursts: list[Burst]) -> Schedule:
    arrival, group, bank, row, write = np.array(bursts, dtype=np.int64).T
    column = np.zeros_like(row)
    place = Location(rank=column, bank_group=group, bank=bank, row=row, column=column)
    addresses = encode(place, AddressMap.COLUMN_LOWEST, standard)
    return schedule(standard, AddressMap.COLUMN_LOWEST, arrival, addresses, write, log_commands=True)


def clocks_of(outcome: Schedule, name: str) -> list[int]:
    return [c.clock for c in outcome.commands if c.name == name]


ACTIVATES = [(0, g, b, 0, 0) for b in range(2) for g in range(4)]
"""Eight activates in different banks; neighbours in different groups."""

# What is asked for, which commands (name, occurrence) must be how far apart, and the timing that makes the rule the tightest.
EXACT = {
    "tRCD read": ({}, [(0, 0, 0, 0, 0)], ("ACT", 0), ("RD", 0), 17),
    "tRCD write": ({}, [(0, 0, 0, 0, 1)], ("ACT", 0), ("WR", 0), 17),
    "tRAS": ({"t_ras": 90}, [(0, 0, 0, 0, 0), (0, 0, 0, 1, 0)], ("ACT", 0), ("PRE", 0), 90),
    "tRC": ({"t_ras": 90}, [(0, 0, 0, 0, 0), (0, 0, 0, 1, 0)], ("ACT", 0), ("ACT", 1), 107),
    "tRP": ({"t_rp": 31}, [(0, 0, 0, 0, 0), (0, 0, 0, 1, 0)], ("PRE", 0), ("ACT", 1), 31),
    "tRTP": ({"t_rtp": 60}, [(0, 0, 0, 0, 0), (0, 0, 0, 1, 0)], ("RD", 0), ("PRE", 0), 60),
    "tWR": ({"t_wr": 50}, [(0, 0, 0, 0, 1), (0, 0, 0, 1, 1)], ("WR", 0), ("PRE", 0), 12 + 4 + 50),
    "tCCD_L": ({}, [(0, 0, 0, 0, 0), (0, 0, 0, 0, 0)], ("RD", 0), ("RD", 1), 6),
    "tCCD_L write": ({"t_ccd_l": 9}, [(0, 0, 0, 0, 1), (0, 0, 0, 0, 1)], ("WR", 0), ("WR", 1), 9),
    "tCCD_S": ({"t_ccd_s": 5}, [(0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 2, 0, 0, 0)], ("RD", 1), ("RD", 2), 5),
    "tRRD_S": ({"t_rrd_s": 5}, ACTIVATES, ("ACT", 0), ("ACT", 1), 5),
    "tRRD_L": ({"t_rrd_l": 11}, [(0, 0, 0, 0, 0), (0, 0, 1, 0, 0)], ("ACT", 0), ("ACT", 1), 11),
    "tFAW": ({"t_faw": 44}, ACTIVATES, ("ACT", 0), ("ACT", 4), 44),
    "tFAW, next window": ({"t_faw": 44}, ACTIVATES, ("ACT", 3), ("ACT", 7), 44),
    "tWTR_L": ({}, [(0, 0, 0, 0, 1), (1, 0, 0, 0, 0)], ("WR", 0), ("RD", 0), 12 + 4 + 9),
    "tWTR_S": ({"t_wtr_s": 7}, [(0, 0, 0, 0, 1), (1, 1, 0, 0, 0)], ("WR", 0), ("RD", 0), 12 + 4 + 7),
    "read to write": ({"t_rtrs": 3}, [(0, 0, 0, 0, 0), (18, 0, 0, 0, 1)], ("RD", 0), ("WR", 0), 17 + 4 + 3 - 12),
    "tRFC": ({"t_rfc": 777}, [(9370, 0, 0, 0, 0)], ("REF", 0), ("ACT", 0), 777),
    "tRP before refresh": ({"t_rp": 40}, [(9355 - 60, 0, 0, 0, 0), (9360, 0, 0, 0, 0)], ("PREA", 0), ("REF", 0), 40),
}


@pytest.mark.parametrize("rule", EXACT)
def test_a_rule_is_met_to_the_clock(rule: str, check_commands: Check) -> None:
    timing, bursts, first, second, expected = EXACT[rule]
    standard = with_timing(BASE, **timing)
    outcome = serve(standard, bursts)
    check_commands(standard, outcome.commands)
    assert clocks_of(outcome, second[0])[second[1]] - clocks_of(outcome, first[0])[first[1]] == expected


@pytest.mark.parametrize("rule", EXACT)
def test_the_checker_refuses_one_clock_less(rule: str, check_commands: Check) -> None:
    """The same trace against rules one clock longer than it was made for: the checker must object."""
    timing, bursts, _, second, _ = EXACT[rule]
    standard = with_timing(BASE, **timing)
    commands = serve(standard, bursts).commands
    later = [i for i, c in enumerate(commands) if c.name == second[0]][second[1]]
    early = commands[later]._replace(clock=commands[later].clock - 1)
    check_commands(standard, commands[: later + 1])
    with pytest.raises(AssertionError):
        check_commands(standard, [*commands[:later], early])


def test_the_checker_refuses_wrong_states(check_commands: Check) -> None:
    for commands in (
        [Command(0, "RD", 0, 0)],
        [Command(0, "ACT", 0, 5), Command(17, "RD", 0, 6)],
        [Command(0, "ACT", 0, 5), Command(100, "ACT", 0, 6)],
        [Command(0, "PRE", 0, 5)],
        [Command(9000, "ACT", 0, 5), Command(9400, "REF", 0, -1)],
        [Command(0, "ACT", 0, 0), Command(0, "ACT", 4, 0)],
    ):
        with pytest.raises(AssertionError):
            check_commands(BASE, commands)


def mixed_traffic(standard: DramStandard, bursts: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrivals, addresses and directions: runs of random length in few rows of few banks, so that all rules come up."""
    rng = np.random.default_rng(seed)
    run = np.repeat(np.arange(bursts), rng.integers(1, 12, bursts))[:bursts]
    pages = rng.integers(0, 6 * standard.banks, bursts) * standard.page_bytes
    offset = rng.integers(0, standard.bursts_per_page, bursts) * standard.burst_bytes
    write = rng.integers(0, 2, bursts)[run].astype(np.int64)
    pauses = rng.integers(0, standard.timing.t_refi, bursts) * (rng.random(bursts) < 0.01)
    return np.cumsum(pauses), pages[run] + offset, write


STANDARDS = {
    **{name: load_standard(name) for name in ("ddr4_2400", "hbm2", "sdr_133")},
    "two ranks": replace(BASE, name="two ranks", ranks=2),
    "shallow queue": replace(BASE, controller=replace(BASE.controller, queue_depth=3, write_high=2, write_low=1)),
    "impatient": replace(BASE, controller=replace(BASE.controller, starvation_clocks=60)),
}


@pytest.mark.parametrize("address_map", AddressMap)
@pytest.mark.parametrize("name", STANDARDS)
def test_mixed_traffic_obeys_all_rules(name: str, address_map: AddressMap, check_commands: Check) -> None:
    standard = STANDARDS[name]
    arrival, addresses, write = mixed_traffic(standard, 700, seed=len(name))
    outcome = schedule(standard, address_map, arrival, addresses, write, log_commands=True)
    check_commands(standard, outcome.commands)
    assert outcome.refreshes > 0
    served = Counter(c.name for c in outcome.commands)
    assert (served["WR"], served["RD"]) == (int(write.sum()), int((1 - write).sum()))
    assert served["ACT"] >= outcome.opened.sum()
    assert (outcome.data_end > arrival).all()


@pytest.mark.parametrize("seed", range(12))
def test_random_timings_are_obeyed(seed: int, check_commands: Check) -> None:
    rng = np.random.default_rng(1000 + seed)
    longer = {f: int(v + rng.integers(0, 2 * v + 2)) for f, v in BASE.timing._asdict().items() if f != "burst"}
    longer["t_refi"] = 4 * (longer["t_rfc"] + 500)
    for s, l_ in (("t_ccd_s", "t_ccd_l"), ("t_rrd_s", "t_rrd_l"), ("t_wtr_s", "t_wtr_l")):
        longer[l_] = max(longer[s], longer[l_])
    standard = with_timing(BASE, **longer)
    outcome = schedule(standard, AddressMap.COLUMN_LOWEST, *mixed_traffic(standard, 400, seed), log_commands=True)
    check_commands(standard, outcome.commands)


def test_each_burst_is_served_in_its_own_row(check_commands: Check) -> None:
    """The column commands of a trace are the requests, each once."""
    arrival, addresses, write = mixed_traffic(BASE, 1000, seed=3)
    outcome = schedule(BASE, AddressMap.BANK_GROUP_LOWEST, arrival, addresses, write, log_commands=True)
    page = addresses // 64 // 16 // 128
    bank = addresses // 64 % 4 * 4 + addresses // 64 // 4 % 4  # group in the lowest two bits, bank above
    asked = Counter(zip(bank.tolist(), page.tolist(), write.tolist(), strict=True))
    done = Counter((c.bank, c.row, int(c.name == "WR")) for c in outcome.commands if c.name in ("RD", "WR"))
    assert done == asked


def test_an_old_request_is_not_starved_by_row_hits() -> None:
    """An endless stream of hits in bank 0 must let a conflicting request through once it is old."""
    stream: list[Burst] = [(0, 0, 0, 0, 0), (1, 0, 0, 1, 0)] + [(2 * i, 0, 0, 0, 0) for i in range(1, 3000)]
    patient = serve(BASE, stream).data_end[1]
    standard = replace(BASE, controller=replace(BASE.controller, starvation_clocks=500))
    assert serve(standard, stream).data_end[1] < 500 + 200 < patient


def test_writes_are_drained_in_batches() -> None:
    """Reads and writes arriving alternately turn the bus around once a queue, not once a request."""
    bursts: list[Burst] = [(0, i % 4, 0, i % 2, i % 2) for i in range(800)]
    assert serve(BASE, bursts).turnarounds <= 2 * (400 // BASE.controller.queue_depth + 1)
