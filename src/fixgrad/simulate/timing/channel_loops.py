"""The inner loops of long simulations, compiled by numba: channels by closed forms, and LOAD's requests to them.

They do what `fixgrad.simulate.dram.ClosedFormChannel`, `MemorySystem.serve` and `LoadUnit` do, operation by operation, so that
every time is equal to theirs in every bit; the tests compare the two on compiled networks. Modules that import numba are
imported when the first long program is simulated. What is called from Python (`entry`) is kept in numba's cache, which looks
at the time stamp of its file alone: after a change here or in `channel_state`, touch `event_loops` and `gap_loops`.
"""

from collections.abc import Callable
from math import ceil
from typing import Any, TypeVar, cast

import numba

from fixgrad.simulate.timing.channel_state import (
    ASKED,
    BEGUN,
    BURSTS,
    BUS,
    BUS_FREE,
    BUSY_NS,
    BUSY_UNTIL,
    BYTES,
    BYTES_READ,
    BYTES_WRITTEN,
    HEAD,
    LAST_PAGE,
    LAST_WRITE,
    LEAD,
    NOW,
    PART,
    REFRESH_NS,
    REQUESTS,
    ROUNDING,
    ROW_MISSES,
    TAIL,
    TRANSFERS,
    TURNAROUNDS,
    WRITES_IN_TURN,
    Channels,
    LoadState,
    Traffic,
)
from fixgrad.simulate.timing.references import refer_to_channels, refer_to_traffic

F = TypeVar("F", bound=Callable[..., object])
#: What `ask_parts` returns when it has asked for everything.
DONE = -1


def entry(function: F) -> F:
    """Compiled, kept on disk, and called from Python."""
    return cast(F, numba.njit(cache=True)(function))


def compiled(function: F) -> F:
    """Compiled for other compiled functions alone: without the code that takes apart Python's arguments, the most of it."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, numba.njit(**options)(function))


@compiled
def _banks_allow(channels: Channels, channel: int, address: int, write: int, start: float, bursts: int) -> float:
    """See `ClosedFormChannel._banks_allow`."""
    free = channels.bank_free[channel]
    count = len(free)
    page_bursts = channels.cycle_ns.shape[1]
    if channels.pages_together == 1:
        first, touched, hits = address // channels.page_bytes, 1, bursts
        group = first % channels.bank_groups
        bank = first // channels.bank_groups % channels.banks_per_group
        first = group * channels.banks_per_group + bank
    else:
        first, touched = address // channels.burst_bytes, min(bursts, channels.pages_together)
        hits = -(-bursts // touched)
    cycle = channels.cycle_ns[write, min(hits, page_bursts) - 1]
    latest = 0.0
    for i in range(touched):
        bank = (first + i) % count
        free[bank] = max(free[bank], start) + cycle
        latest = max(latest, free[bank])
    return latest - channels.reordered_ns


@compiled
def _joined(channels: Channels, channel: int, page: int, write: int, turned: bool) -> bool:
    """See `ClosedFormChannel._joined`."""
    if page < 0 or (turned and write):
        return False
    for index in range(channels.tail_counts[channel, write]):
        if (page - channels.tails[channel, write, index, 0]) % channels.bank_groups:
            return True
    return False


@compiled
def _remember(channels: Channels, channel: int, page: int, write: int, bursts: int, turned: bool) -> None:
    """See `ClosedFormChannel._remember`; the newest of the tails is the last one here."""
    counts, integers = channels.tail_counts[channel], channels.integers[channel]
    tails = channels.tails[channel, write]
    if write:
        if turned:
            counts[1] = 0
            integers[WRITES_IN_TURN] = 0
        integers[WRITES_IN_TURN] += bursts
    integers[LAST_WRITE] = write
    integers[LAST_PAGE] = page
    if page < 0:
        return
    if bursts >= channels.depth:
        counts[write] = 0
    count = counts[write]
    tails[count, 0], tails[count, 1] = page, bursts
    count += 1
    held = 0
    for index in range(count):
        held += tails[index, 1]
    drop = 0
    while count - drop > 1 and held - tails[drop, 1] >= channels.depth:
        held -= tails[drop, 1]
        drop += 1
    for index in range(drop, count):
        tails[index - drop, 0], tails[index - drop, 1] = tails[index, 0], tails[index, 1]
    counts[write] = count - drop


@compiled
def _serve(channels: Channels, traffic: Traffic, channel: int, address: int, shape: int, now: float) -> tuple[float, float]:
    """See `ClosedFormChannel.serve`: (first data, end) in ns."""
    integers, floats = channels.integers[channel], channels.floats[channel]
    size, write, reach, contiguous = traffic.shapes[shape]
    page = -1 if reach < 0 else address // channels.page_bytes
    turned = integers[LAST_WRITE] >= 0 and write != integers[LAST_WRITE]
    last_page, together = integers[LAST_PAGE], channels.pages_together
    is_open = page >= 0 and last_page >= 0 and page // together == last_page // together
    joined = now <= floats[BUSY_UNTIL] and _joined(channels, channel, page, write, turned)
    variant = 2 * int(joined) + int(is_open)
    busy, bursts = traffic.busy_ns[shape, variant], traffic.bursts[shape, variant]
    gap = 0.0
    if turned:
        written = bursts if write else integers[WRITES_IN_TURN]
        gap = channels.gap_ns[write] * min(1.0, written / channels.depth)
    start = max(now, floats[BUSY_UNTIL])
    bus_start = max(now + channels.lead_ns[write, int(is_open)], floats[BUSY_UNTIL] + gap)
    end = bus_start + busy
    if contiguous and not is_open and bursts <= channels.depth:
        end = max(end, _banks_allow(channels, channel, address, write, bus_start, bursts))
    integers[TRANSFERS] += 1
    integers[BURSTS] += bursts
    integers[ROW_MISSES] += traffic.row_misses[shape, variant]
    integers[TURNAROUNDS] += turned
    floats[BUSY_NS] += end - start
    floats[REFRESH_NS] += busy * channels.refresh_share
    integers[BYTES_WRITTEN if write else BYTES_READ] += size
    _remember(channels, channel, -1 if reach < 0 else (address + reach) // channels.page_bytes, write, bursts, turned)
    floats[BUSY_UNTIL] = end
    first = bus_start + channels.front_ns + channels.first_burst_ns
    return first, max(first, end + channels.front_ns)


@compiled
def _serve_request(channels: Channels, traffic: Traffic, request: int, base: int, now: int, row: int) -> tuple[int, int]:
    """See `MemorySystem.serve`, for one request: cycles of the first and of the last data."""
    first, last = 0, 0
    bursts = 0
    for number in range(traffic.request_first[request], traffic.request_first[request + 1]):
        channel, shape = traffic.channel[number], traffic.shape[number]
        address = base + traffic.address[number]
        bursts -= channels.integers[channel, BURSTS]
        data, finished = _serve(channels, traffic, channel, address, shape, now * channels.ns)
        bursts += channels.integers[channel, BURSTS]
        size, write = traffic.shapes[shape, 0], traffic.shapes[shape, 1]
        begin = ceil(data * channels.cycle - ROUNDING)
        ported = max(begin, channels.ports[channel, write]) + -(-size // channels.port_bytes)
        end = max(ported, ceil(finished * channels.cycle - ROUNDING))
        channels.ports[channel, write] = end
        if first == 0:
            first = begin
        last = max(last, end)
    channels.row_bytes[row] += bursts * channels.burst_bytes
    return first, last


@compiled
def serve(channels: Channels, traffic: Traffic, requests: tuple[int, int], base: int, now: int, row: int) -> tuple[int, int]:
    """Serve requests [first, last) of `traffic`, `base` bytes further in each channel, at cycle `now`.

    Returns:
        The latest of their first and of their last data, in cycles.
    """
    first, last = now, now
    for request in range(requests[0], requests[1]):
        begin, end = _serve_request(channels, traffic, request, base, now, row)
        first, last = max(first, begin), max(last, end)
    return first, last


@entry
def serve_once(channels: Channels, traffic: Traffic, requests: tuple[int, int], base: int, now: int, row: int) -> tuple[int, int]:
    """`serve` for one who is not compiled."""
    return serve(refer_to_channels(*channels), refer_to_traffic(*traffic), requests, base, now, row)


@compiled
def _window(state: LoadState, now: int, number: int, size: int) -> int:
    """See `LoadUnit._window`."""
    integers, ring = state.integers, state.outstanding
    free = now
    while integers[HEAD] < integers[TAIL]:
        done, requests, held = ring[integers[HEAD] % len(ring)]
        full = integers[REQUESTS] + min(number, -(-state.requests // 2)) > state.requests or integers[BYTES] + size > state.bytes
        if done > free and not full:
            break
        integers[HEAD] += 1
        integers[REQUESTS] -= requests
        integers[BYTES] -= held
        free = max(free, done)
    return free


@compiled
def ask_parts(
    channels: Channels, traffic: Traffic, state: LoadState, requests: tuple[int, int], base: int, times: tuple[int, int, int], row: int
) -> int:
    """See `LoadUnit`: ask for the parts of a block from `state.integers[PART]` on, until the window is full.

    Args:
        requests: [first, last): those of the block, a part each.
        times: now; the next event of any unit, before which LOAD is the only one to do anything; when the last instruction
            of the block has been dispatched.

    Returns:
        The cycle at which LOAD is to go on, or DONE. `state.integers[NOW]` is the cycle that has been reached.
    """
    integers, ring = state.integers, state.outstanding
    now, horizon, dispatched = times
    while requests[0] + integers[PART] < requests[1]:
        request = requests[0] + integers[PART]
        bus, number, size = traffic.parts[request]
        free = _window(state, now, number, size)
        if free > now:
            if free >= horizon:
                integers[NOW] = now
                return free
            now = free
            continue
        first, last = now, max(now, dispatched)
        if traffic.request_first[request] < traffic.request_first[request + 1]:
            begin, end = _serve_request(channels, traffic, request, base, now, row)
            first, last = max(first, begin), max(last, end)
        if number > state.requests:
            last = max(last, now + number * state.read_latency // state.requests)
        lead = integers[LEAD] if integers[ASKED] < 0 else 0
        begin = max(integers[BUS_FREE] + lead, first)
        end = max(begin + bus, last)
        if integers[ASKED] < 0:
            integers[ASKED], integers[BEGUN] = now, begin
        integers[BUS] += bus
        integers[BUS_FREE] = end
        taken = min(number, -(-state.requests // 2))
        place = integers[TAIL] % len(ring)
        ring[place, 0], ring[place, 1], ring[place, 2] = end, taken, size
        integers[TAIL] += 1
        if integers[TAIL] - integers[HEAD] > len(ring):
            raise OverflowError("more parts of LOAD are outstanding than the ring holds")
        integers[REQUESTS] += taken
        integers[BYTES] += size
        integers[PART] += 1
    integers[NOW] = now
    return DONE
