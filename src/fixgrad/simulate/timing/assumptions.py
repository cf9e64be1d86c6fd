"""What the timing model assumes of the machine beyond `fixgrad.machine.Machine`: depths of queues and of read-ahead.

They bound how far a unit runs ahead; docs/timing.md says what each of them is worth.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Depths of queues and buffers between the units and memory.

    Attributes:
        queue_instructions: instructions that wait in front of a unit; dispatch stops at a full queue.
        fetch_bytes: bytes of program that one fetch asks for; the next one is asked for when dispatch begins on them.
        load_requests, load_bytes: reads that LOAD has outstanding at most: asked for and not yet distributed.
        request_bytes: bytes that LOAD asks of each memory channel at a time.
        steps_ahead: steps of POST and UPDATE that are read ahead of the one being worked on, or not yet written behind it.
        step_bytes: bytes of stores of a step of POST: what it collects before it writes.
        step_parameters: parameters of a step of UPDATE.
        block_instructions, block_bytes: LOAD_KERNELS, or UPDATEs of a group, that the model takes together at most: half a
            queue, so that dispatch goes on meanwhile.
        join_above: instructions of a program from which on it does so; shorter ones are simulated one by one.
        compile_above: instructions of a program from which on the compiled loops take over from the interpreted ones. Their
            results are equal; it takes a second to load them.
    """

    queue_instructions: int = 16
    fetch_bytes: int = 4096
    load_requests: int = 16
    load_bytes: int = 32768
    request_bytes: int = 4096
    steps_ahead: int = 2
    step_bytes: int = 8192
    step_parameters: int = 1024
    block_instructions: int = 8
    block_bytes: int = 8192
    join_above: int = 10_000
    compile_above: int = 100_000


DEFAULT = Assumptions()
