"""The steps in which POST and UPDATE work: read, compute, write."""

from typing import NamedTuple

from fixgrad.simulate.timing.traffic import Bundle, RegionRequest, Request


class Drain(NamedTuple):
    """Words that POST takes from each PE of a group in a step."""

    group: int
    words: int


class Step(NamedTuple):
    """One step: what it reads, cycles of work, what it writes, and what it takes from lane memories."""

    reads: tuple[Request | Bundle | RegionRequest, ...]
    cycles: int
    writes: tuple[Request | Bundle | RegionRequest, ...]
    drains: tuple[Drain, ...] = ()
