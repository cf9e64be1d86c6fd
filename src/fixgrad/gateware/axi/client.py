"""What a DMA engine and the interconnect say to each other, for each memory channel."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import MemoryPorts


class ReadPort(wiring.Signature):
    """From the engine's side. It asks only for what it has room for, so the data need no `ready`.

    Members:
        ar: bursts asked for: address within the channel, beats less one.
        r: beats that arrive, in the order of the bursts: data, whether the memory reported an error, last of its burst.
    """

    def __init__(self, ports: MemoryPorts) -> None:
        beat = data.StructLayout({"data": 8 * ports.port_bytes, "error": 1, "last": 1})
        super().__init__(
            {
                "ar": Out(stream.Signature(data.StructLayout({"address": ports.local_bits, "beats": 8}))),
                "r": In(stream.Signature(beat, always_ready=True)),
            }
        )


class WritePort(wiring.Signature):
    """From the engine's side. Every burst that it offers has all its data waiting.

    Members:
        aw: bursts: address within the channel, beats less one.
        w: their beats in the same order: data, bytes to write, last of its burst.
        b: responses in the same order: whether the memory reported an error.
    """

    def __init__(self, ports: MemoryPorts) -> None:
        beat = data.StructLayout({"data": 8 * ports.port_bytes, "strobe": ports.port_bytes, "last": 1})
        super().__init__(
            {
                "aw": Out(stream.Signature(data.StructLayout({"address": ports.local_bits, "beats": 8}))),
                "w": Out(stream.Signature(beat)),
                "b": In(stream.Signature(data.StructLayout({"error": 1}), always_ready=True)),
            }
        )
