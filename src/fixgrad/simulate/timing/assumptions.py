"""What the timing model assumes of the machine beyond `fixgrad.machine.Machine`: depths of queues, read-ahead, fixed latencies.

The depths bound how far a unit runs ahead. A latency names the place in the gateware that it comes from, and how it adds up;
docs/timing.md says how near it all comes to the RTL.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Depths of queues and buffers between the units and memory.

    Attributes:
        queue_instructions: instructions that wait in front of a unit; dispatch stops at a full queue.
        fetch_beats: beats of the port that one fetch of the program asks for, `burst_beats` of `axi/burst.py`; fetch_bursts: how
            many are asked for ahead of dispatch, `bursts` of `axi/reader.py`.
        load_requests, load_bytes: reads that LOAD has outstanding at most: asked for and not yet distributed.
        request_bytes: bytes that LOAD asks of each memory channel at a time.
        steps_ahead: steps of POST and UPDATE that are read ahead of the one being worked on, or not yet written behind it.
        step_bytes: bytes of stores of a step of POST: what it collects before it writes.
        step_parameters: parameters of a step of UPDATE.
        block_instructions, block_bytes: LOAD_KERNELS, or UPDATEs of a group, that the model takes together at most: half a
            queue, so that dispatch goes on meanwhile.
        join_above: instructions of a program from which on it does so; shorter ones are simulated one by one.
        completion: cycles from the end of an instruction until one that waited for it begins: the count (`SlowestCount` of
            `control/scoreboard.py`) and the comparison with it (`UnitQueue` of `control/dispatch.py`) are a register each.
        compute_fill: cycles of a COMPUTE beyond its steps, in which no other one of the group runs: `START_CYCLES` until the
            first operand is read, and `COMPUTE_LATENCY` from the last one's read on (`pe/pe.py`): 5 + 8 - 1.
        load_turn: cycles of LOAD's data bus from the last word of a map to the first of a kernel, or the other way round: the
            one must have ended, and the other begin (`LoadUnit._share_out`, `KernelPusher.idle`).
        load_beats: cycles from the coordinates of a LOAD_KERNELS until its weights are at hand, where they stood behind a map:
            joined to a beat, through the queue in block RAM, into the window (`Join`, `BlockFifo`, `WeightWindow` of `load/`).
        post_setup: cycles from a POST until its first word is asked for: products a bit a cycle (`post/setup.py`).
        post_end: cycles from the last word of a POST until the last of what it writes has left and its statistics are
            reported: `END_CYCLES` (`post/drain.py`), and the states SETTLE and REPORT (`post/post_unit.py`).
        update_setup: cycles from an UPDATE until its first transfer: `met`, the states of `update/opener.py`; and the count of
            its random elements, one a cycle, comes in addition.
        update_walk: cycles from a parameter's gradient to its block's beat at the memory port: `WALK_LATENCY`
            (`update/parameter_walk.py`), packing, `BlockCutter`, `BeatAssembler` of eight words, `BurstSender`.
        compile_above: instructions of a program from which on the compiled loops take over from the interpreted ones. Their
            results are equal; it takes a second to load them.
    """

    queue_instructions: int = 16
    fetch_beats: int = 16
    fetch_bursts: int = 4
    load_requests: int = 32
    load_bytes: int = 32768
    request_bytes: int = 4096
    steps_ahead: int = 2
    step_bytes: int = 8192
    step_parameters: int = 256
    block_instructions: int = 8
    block_bytes: int = 8192
    join_above: int = 10_000
    compile_above: int = 100_000
    completion: int = 2
    compute_fill: int = 12
    load_turn: int = 2
    load_beats: int = 2
    post_setup: int = 50
    post_end: int = 22
    update_setup: int = 5
    update_walk: int = 32


DEFAULT = Assumptions()
