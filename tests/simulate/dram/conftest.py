"""A slow checker of command traces, written from the timing rules, and the shares that several tests need."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from fixgrad.simulate.dram import AddressMap, DramStandard, Fidelity
from fixgrad.simulate.dram.bank_level import Command
from fixgrad.simulate.dram.patterns import ReferencePattern, measured_share

COLUMN, ROW = ("RD", "WR"), ("ACT", "PRE", "PREA", "REF")


class ViolationError(AssertionError):
    """A command that comes too early or to a bank in the wrong state."""


class Checker:
    """Replays a trace, each command against every earlier one that a rule ties it to. Shares nothing with the scheduler."""

    def __init__(self, standard: DramStandard) -> None:
        self.s = standard
        self.t = standard.timing
        self.past: list[Command] = []
        self.open: dict[int, int] = {}

    def group(self, bank: int) -> int:
        return bank // self.s.banks_per_group

    def rank(self, command: Command) -> int:
        if command.name in ("PREA", "REF"):
            return command.bank
        return self.group(command.bank) // self.s.bank_groups

    def banks(self, command: Command) -> set[int]:
        """Banks that a command concerns."""
        if command.name in ("PREA", "REF"):
            size = self.s.bank_groups * self.s.banks_per_group
            return set(range(command.bank * size, (command.bank + 1) * size))
        return {command.bank}

    def data(self, command: Command) -> tuple[int, int]:
        first = command.clock + (self.t.cl if command.name == "RD" else self.t.cwl)
        return first, first + self.t.burst

    def gap(self, old: Command, new: Command) -> tuple[int, str]:
        """The longest distance that a rule asks between two commands, and its name."""
        t, rules = self.t, [(0, "order")]
        pair = (old.name, new.name)
        same_rank = self.rank(old) == self.rank(new)
        same_bank = bool(self.banks(old) & self.banks(new))
        same_group = same_rank and self.group(old.bank) == self.group(new.bank)
        closing, closed = new.name in ("PRE", "PREA"), old.name in ("PRE", "PREA")
        if same_bank and old.name == "ACT":
            if new.name in COLUMN:
                rules.append((t.t_rcd, "tRCD"))
            if closing:
                rules.append((t.t_ras, "tRAS"))
            if new.name in ("ACT", "REF"):
                rules.append((t.t_ras + t.t_rp, "tRC"))
        if same_bank and closed and new.name in ("ACT", "REF"):
            rules.append((t.t_rp, "tRP"))
        if same_bank and closing and old.name == "RD":
            rules.append((t.t_rtp, "tRTP"))
        if same_bank and closing and old.name == "WR":
            rules.append((t.cwl + t.burst + t.t_wr, "tWR"))
        if same_rank and pair == ("ACT", "ACT"):
            rules.append((t.t_rrd_l, "tRRD_L") if same_group else (t.t_rrd_s, "tRRD_S"))
        if same_rank and pair in (("RD", "RD"), ("WR", "WR")):
            rules.append((t.t_ccd_l, "tCCD_L") if same_group else (t.t_ccd_s, "tCCD_S"))
        if same_rank and pair == ("WR", "RD"):
            wait = (t.t_wtr_l, "tWTR_L") if same_group else (t.t_wtr_s, "tWTR_S")
            rules.append((t.cwl + t.burst + wait[0], wait[1]))
        if same_bank and pair in (("REF", "ACT"), ("REF", "REF")):
            rules.append((t.t_rfc, "tRFC"))
        return max(rules)

    def check_bus(self, new: Command) -> None:
        for old in self.past:
            shared = self.s.command_buses == 1 or (old.name in COLUMN) == (new.name in COLUMN)
            if shared and old.clock == new.clock:
                raise ViolationError(f"{old} and {new} on one command bus")
            if old.name in COLUMN and new.name in COLUMN:
                driver_changes = self.rank(old) != self.rank(new) or (old.name, new.name) == ("RD", "WR")
                idle = self.t.t_rtrs if driver_changes else 0
                if self.data(new)[0] < self.data(old)[1] + idle:
                    raise ViolationError(f"data of {old} and {new} less than {idle} clocks apart")

    def check_state(self, new: Command) -> None:
        if new.name in COLUMN and self.open.get(new.bank) != new.row:
            raise ViolationError(f"{new}, but row {self.open.get(new.bank)} is open")
        if new.name == "ACT" and new.bank in self.open:
            raise ViolationError(f"{new} to an open bank")
        if new.name == "PRE" and new.bank not in self.open:
            raise ViolationError(f"{new} to a closed bank")
        if new.name == "REF" and self.banks(new) & set(self.open):
            raise ViolationError(f"{new} with open banks")

    def check_four_activates(self, new: Command) -> None:
        activates = [c for c in self.past if c.name == "ACT" and self.rank(c) == self.rank(new)]
        if new.name == "ACT" and len(activates) >= 4 and new.clock - activates[-4].clock < self.t.t_faw:
            raise ViolationError(f"tFAW: {new} only {new.clock - activates[-4].clock} after the fourth last activate")

    def add(self, new: Command) -> None:
        for old in self.past:
            least, rule = self.gap(old, new)
            if new.clock - old.clock < least:
                raise ViolationError(f"{rule}: {new} only {new.clock - old.clock} after {old}, needs {least}")
        self.check_bus(new)
        self.check_state(new)
        self.check_four_activates(new)
        if new.name == "ACT":
            self.open[new.bank] = new.row
        elif new.name in ("PRE", "PREA"):
            for bank in self.banks(new):
                self.open.pop(bank, None)
        reach = max(self.t.t_rfc, self.t.t_ras + self.t.t_rp, self.t.cwl + self.t.burst + self.t.t_wr, self.t.t_faw)
        self.past = [c for c in self.past if new.clock - c.clock <= 2 * reach] + [new]


def check_refresh(standard: DramStandard, commands: list[Command]) -> None:
    """Each rank is refreshed once an interval, never early, and late by no more than it takes to close its banks."""
    t = standard.timing
    longest = max(t.t_ras, t.t_rcd + t.cwl + t.burst + t.t_wr, t.t_rtp) + t.t_rp + t.t_rfc + 8
    for rank in range(standard.ranks):
        clocks = [c.clock for c in commands if c.name == "REF" and c.bank == rank]
        for i, clock in enumerate(clocks):
            due = (rank + 1) * t.t_refi // standard.ranks + i * t.t_refi
            assert due <= clock <= due + longest, f"refresh {i} of rank {rank} at {clock}, due {due}"
        assert all(b - a >= t.t_refi - longest for a, b in pairwise(clocks))


@pytest.fixture(scope="session")
def share_of() -> Callable[[str, ReferencePattern, Fidelity, AddressMap], float]:
    """`measured_share` over 65,536 bursts, each computed once."""
    known: dict[tuple[str, str, Fidelity, AddressMap], float] = {}

    def share(standard: str, pattern: ReferencePattern, fidelity: Fidelity, address_map: AddressMap) -> float:
        key = (standard, pattern.name, fidelity, address_map)
        if key not in known:
            known[key] = measured_share(pattern, fidelity, address_map, standard, bursts=65_536)
        return known[key]

    return share


@pytest.fixture
def check_commands() -> Callable[[DramStandard, list[Command]], None]:
    """Raises ViolationError if a trace of commands breaks a rule of the standard."""

    def check(standard: DramStandard, commands: list[Command]) -> None:
        checker = Checker(standard)
        for command in commands:
            checker.add(command)
        check_refresh(standard, commands)

    return check
