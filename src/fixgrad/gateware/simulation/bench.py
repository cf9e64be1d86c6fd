"""A chip on the test bench: memory behind its AXI ports, a register master, streams, wires, waveform.

The cycle loop, the memory model and the protocol checks are C++ (`harness/`); a call from here runs many cycles.
"""

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import FixgradError
from fixgrad.gateware.axi.ports import Port
from fixgrad.gateware.simulation.builds import Engine, build
from fixgrad.gateware.simulation.emit import Netlist


class BenchError(FixgradError):
    """The chip broke a protocol, did not answer, or lacks what was asked for."""


@dataclass(frozen=True, slots=True)
class DramTiming:
    """Timing of one memory channel in cycles of the chip's clock. All zero: an ideal memory.

    Attributes:
        read_latency: from a burst's acceptance until its first beat.
        write_latency: from a burst's last beat until its response.
        bytes_per_kilocycle: what the data bus sustains in 1000 cycles, reads and writes together; 0: no limit.
        turnaround: idle cycles when the bus changes its direction.
        refresh_interval, refresh_cycles: every so many cycles the channel rests for so many.
    """

    read_latency: int = 0
    write_latency: int = 0
    bytes_per_kilocycle: int = 0
    turnaround: int = 0
    refresh_interval: int = 0
    refresh_cycles: int = 0


@dataclass(frozen=True, slots=True)
class Hostility:
    """Random rests on every channel, the same for the same seed.

    Attributes:
        seed: of the rests and of the order.
        per_mille: of the cycles in which a rest begins.
        longest: rests last up to so many cycles.
        reorder: the memory interleaves and overtakes bursts of different identifiers, and may take data before its address.
    """

    seed: int = 0
    per_mille: int = 0
    longest: int = 0
    reorder: bool = False

    def __bool__(self) -> bool:
        return self.per_mille > 0 or self.reorder


IDEAL = DramTiming()
PEACEFUL = Hostility()


@dataclass(frozen=True, slots=True)
class MemoryCounts:
    """What one AXI port has moved; `most_*` are the most bursts outstanding at once."""

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int
    most_reads: int
    most_writes: int


def record_type(ports: Iterable[Port]) -> np.dtype[Any]:
    """The NumPy type of a payload: a field for each port, an unsigned integer, or little-endian bytes above 64 bits."""

    def field(port: Port) -> tuple[str, Any]:
        for bits, name in ((8, "u1"), (16, "<u2"), (32, "<u4"), (64, "<u8")):
            if port.bits <= bits:
                return port.name, name
        return port.name, ("u1", (4 * ((port.bits + 31) // 32),))

    return np.dtype([field(port) for port in ports])


class Source:
    """Pushes payloads into an input stream of the chip."""

    def __init__(self, bench: "Bench", index: int, dtype: np.dtype[Any]) -> None:
        self._bench, self._index, self.dtype = bench, index, dtype

    def push(self, records: Any) -> None:
        """Queues payloads: an array of `dtype`, or a sequence of tuples."""
        data = np.ascontiguousarray(np.asarray(records, dtype=self.dtype).reshape(-1))
        self._bench.call("bench_push", self._index, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(len(data)))

    @property
    def waiting(self) -> int:
        """Payloads that the chip has not taken yet."""
        return self._bench.call("bench_waiting", self._index)


class Sink:
    """Takes payloads from an output stream of the chip."""

    def __init__(self, bench: "Bench", index: int, dtype: np.dtype[Any]) -> None:
        self._bench, self._index, self.dtype = bench, index, dtype

    @property
    def count(self) -> int:
        """Payloads taken and not popped yet."""
        return self._bench.call("bench_taken", self._index)

    def pop(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """All payloads taken since the last call, and the cycle in which each was."""
        records = np.zeros(self.count, self.dtype)
        cycles = np.zeros(len(records), np.uint64)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (records, cycles))
        self._bench.call("bench_pop", self._index, *pointers)
        return records, cycles

    def wait(self, count: int, limit: int) -> bool:
        """Runs until `count` payloads are there; False where `limit` cycles did not bring them."""
        return bool(self._bench.call("bench_run_until_taken", self._index, ctypes.c_uint64(count), ctypes.c_uint64(limit)))


class Bench:
    """One chip, in simulation.

    Every AXI4 port `P` (its ports named `P_awvalid` and so on) must be given a memory, every stream in use a source or a
    sink. Nothing runs before `reset` has been called.

    Raises:
        ToolError: the build failed.
        BenchError: the library could not be set up.
    """

    def __init__(self, design: Netlist, engine: Engine = Engine.VERILATOR, *, trace: Path | None = None, quick: bool = False) -> None:
        self.ports = {port.name: port for port in design.ports}
        self.library = build(design, engine, trace=trace is not None, quick=quick)
        self._c = _load(self.library)
        self._handle: int | None = self._c.bench_new()
        if not self._handle:
            raise BenchError(f"{self.library.name}: {self._problem()}")
        self._memories = self._lites = 0
        self._bytes: NDArray[np.uint8] | None = None
        if trace is not None:
            self._check(self.call("bench_trace", str(trace).encode()))

    def close(self) -> None:
        """Ends the waveform and frees the memory."""
        if self._handle:
            self._bytes = None
            self.call("bench_trace", None)
            self._c.bench_delete(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def call(self, name: str, *arguments: Any) -> int:
        """A function of the library, with this bench as its first argument."""
        if not self._handle:
            raise BenchError("the bench is closed: open another one")
        return getattr(self._c, name)(ctypes.c_void_p(self._handle), *arguments)

    def _problem(self) -> str:
        return str(self._c.bench_problem().decode())

    def _check(self, result: int) -> int:
        if result < 0:
            raise BenchError(self._problem())
        return result

    # Time

    @property
    def cycle(self) -> int:
        """Cycles since the bench was made; a reset does not count."""
        return self.call("bench_cycle")

    def reset(self, cycles: int = 2) -> None:
        """Holds the reset for so many cycles. The memory keeps its bytes."""
        self._check(self.call("bench_reset", cycles))

    def step(self, cycles: int = 1) -> None:
        """Runs so many cycles."""
        self.call("bench_step", ctypes.c_uint64(cycles))

    def run_until(self, port: str, value: int, limit: int) -> bool:
        """Runs until the port has the value; False where `limit` cycles did not bring it."""
        return bool(self._check(self.call("bench_run_until", port.encode(), ctypes.c_uint64(value), ctypes.c_uint64(limit))))

    # Wires

    def set(self, port: str, value: int) -> None:
        """Drives an input that belongs to no stream or bus."""
        width = self._port(port).bits
        data = value.to_bytes((width + 7) // 8, "little")
        self._check(self.call("bench_set", port.encode(), data, ctypes.c_uint64(len(data))))

    def get(self, port: str) -> int:
        """The value of a port."""
        data = ctypes.create_string_buffer((self._port(port).bits + 7) // 8)
        self._check(self.call("bench_get", port.encode(), data, ctypes.c_uint64(len(data))))
        return int.from_bytes(data.raw, "little")

    def _port(self, name: str) -> Port:
        if name not in self.ports:
            raise BenchError(f"the chip has no port {name!r}: it has {', '.join(self.ports)}")
        return self.ports[name]

    # Streams

    def _payload(self, stream: str) -> list[Port]:
        handshake = (f"{stream}_valid", f"{stream}_ready")
        self._port(handshake[0])
        prefix = f"{stream}_"
        return [p for name, p in self.ports.items() if name.startswith(prefix) and name not in handshake]

    def _stream(self, function: str, stream: str, hostility: Hostility) -> tuple[int, np.dtype[Any]]:
        payload = self._payload(stream)
        prefix = len(stream) + 1
        fields = [Port(port.name[prefix:], port.bits, port.is_input) for port in payload]
        names = " ".join(port.name for port in fields).encode()
        rests = (ctypes.c_uint64(hostility.seed), hostility.per_mille, hostility.longest)
        return self._check(self.call(function, stream.encode(), names, *rests)), record_type(fields)

    def source(self, stream: str, hostility: Hostility = PEACEFUL) -> Source:
        """A source for the input stream of that name."""
        return Source(self, *self._stream("bench_add_source", stream, hostility))

    def sink(self, stream: str, hostility: Hostility = PEACEFUL) -> Sink:
        """A sink for the output stream of that name. It watches the rules of a stream, see `check`."""
        return Sink(self, *self._stream("bench_add_sink", stream, hostility))

    # Memory

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """The memory of all channels together as an array of bytes that the simulation shares; zeros at first."""
        pointer = ctypes.POINTER(ctypes.c_uint8)()
        self._check(self.call("bench_allocate", ctypes.c_uint64(size), ctypes.byref(pointer)))
        self._bytes = np.ctypeslib.as_array(pointer, (size,))
        return self._bytes

    @property
    def memory(self) -> NDArray[np.uint8]:
        """What `allocate` returned."""
        if self._bytes is None:
            raise BenchError("the bench has no memory: allocate it first")
        return self._bytes

    def attach_memory(
        self,
        prefix: str,
        *,
        channel: int = 0,
        channels: int = 1,
        interleave: int = 4096,
        timing: DramTiming = IDEAL,
        hostility: Hostility = PEACEFUL,
    ) -> int:
        """Puts the memory behind an AXI4 port. Byte `a` of the whole memory lies in channel `a // interleave % channels`.

        Returns:
            the number of the port, for `counts` and `freeze`.
        """
        figures = (ctypes.c_uint32 * 6)(*astuple(timing))
        rests = (ctypes.c_uint32 * 3)(hostility.per_mille, hostility.longest, hostility.reorder)
        where = (channel, channels, ctypes.c_uint64(interleave))
        self._check(self.call("bench_add_memory", prefix.encode(), *where, figures, ctypes.c_uint64(hostility.seed), rests))
        self._memories += 1
        return self._memories - 1

    def fault(self, first: int, limit: int, response: int) -> None:
        """Accesses to bytes [first, limit) are answered with this response, 2 (SLVERR) or 3 (DECERR)."""
        self.call("bench_fault", ctypes.c_uint64(first), ctypes.c_uint64(limit), response)

    def clear_faults(self) -> None:
        """All accesses succeed again."""
        self.call("bench_clear_faults")

    def allow_writes(self, first: int, limit: int) -> None:
        """Makes a write outside of [first, limit), and outside of other ranges allowed, a violation."""
        self.call("bench_writable", ctypes.c_uint64(first), ctypes.c_uint64(limit))

    def freeze(self, memory: int, frozen: bool = True) -> None:
        """The memory answers nothing any more."""
        self.call("bench_freeze", memory, int(frozen))

    def counts(self, memory: int) -> MemoryCounts:
        """What a port has moved."""
        values = (ctypes.c_uint64 * 6)()
        self.call("bench_memory_counts", memory, values)
        return MemoryCounts(*values)

    @property
    def is_quiet(self) -> bool:
        """No burst is under way at any memory."""
        return bool(self.call("bench_quiet"))

    # Registers

    def attach_registers(self, prefix: str, hostility: Hostility = PEACEFUL) -> int:
        """Puts a master on an AXI4-Lite port; returns its number."""
        rests = (ctypes.c_uint64(hostility.seed), hostility.per_mille, hostility.longest)
        self._check(self.call("bench_add_lite", prefix.encode(), *rests))
        self._lites += 1
        return self._lites - 1

    def write_register(self, lite: int, address: int, value: int, strobes: int = 15, limit: int = 100_000) -> int:
        """Writes 32 bits and returns the response.

        Raises:
            BenchError: no answer within `limit` cycles.
        """
        response = ctypes.c_uint32()
        arguments = (lite, address, ctypes.c_uint32(value), strobes, ctypes.c_uint64(limit), ctypes.byref(response))
        if self.call("bench_register_write", *arguments):
            raise BenchError(f"no answer to the write of register {address:#x} within {limit} cycles")
        return response.value

    def read_register(self, lite: int, address: int, limit: int = 100_000) -> tuple[int, int]:
        """Reads 32 bits and returns them and the response.

        Raises:
            BenchError: no answer within `limit` cycles.
        """
        data, response = ctypes.c_uint32(), ctypes.c_uint32()
        arguments = (lite, address, ctypes.c_uint64(limit), ctypes.byref(data), ctypes.byref(response))
        if self.call("bench_register_read", *arguments):
            raise BenchError(f"no answer to the read of register {address:#x} within {limit} cycles")
        return data.value, response.value

    def check(self) -> None:
        """Raises BenchError if the chip has broken a rule of AXI or of streams, or written where it may not."""
        self._c.bench_violation.restype = ctypes.c_char_p
        violation = self._c.bench_violation(ctypes.c_void_p(self._handle)).decode()
        if violation:
            raise BenchError(violation)


_WIDE: Mapping[str, Any] = {
    "bench_new": ctypes.c_void_p,
    "bench_problem": ctypes.c_char_p,
    "bench_cycle": ctypes.c_uint64,
    "bench_waiting": ctypes.c_uint64,
    "bench_taken": ctypes.c_uint64,
}


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, result in _WIDE.items():
        getattr(library, name).restype = result
    library.bench_delete.argtypes = [ctypes.c_void_p]
    return library
