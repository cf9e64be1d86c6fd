"""Signatures of AXI4 and AXI4-Lite, from the master's side.

Each of the five channels is a stream whose payload is a structure; `fixgrad.gateware.axi.ports` gives the flat names of the
standard. Source: Arm, AMBA AXI and ACE Protocol Specification (IHI 0022), A2 (signals), A3 (handshakes and bursts), B1 (Lite).
"""

from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

#: A burst must not cross an address that is a multiple of this (A3.4.1).
BOUNDARY_BYTES = 4096
#: The longest burst with incrementing addresses (A3.4.1).
MAX_BURST_BEATS = 256


class Burst(enum.Enum, shape=2):  # type: ignore[call-arg]
    """AxBURST (A3.4.1). The machine issues INCR alone."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(enum.Enum, shape=2):  # type: ignore[call-arg]
    """RRESP and BRESP (A3.4.4)."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Axi4Signature(wiring.Signature):
    """A master port of AXI4.

    Args:
        address_bits: width of an address, 12 to 64.
        data_bytes: bytes of a beat, a power of two from 1 to 128.
        id_bits: width of a transaction's identifier, at least 1.
    """

    def __init__(self, *, address_bits: int, data_bytes: int, id_bits: int) -> None:
        if not 12 <= address_bits <= 64:
            raise ValueError(f"address_bits is {address_bits}: AXI4 addresses have 12 to 64")
        if data_bytes not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise ValueError(f"data_bytes is {data_bytes}: a beat has a power of two from 1 to 128")
        if id_bits < 1:
            raise ValueError(f"id_bits is {id_bits}: choose at least 1")
        self.address_bits, self.data_bytes, self.id_bits = address_bits, data_bytes, id_bits
        address = data.StructLayout(
            {
                "id": id_bits,
                "addr": address_bits,
                "len": 8,  # beats less one
                "size": 3,  # log2 of the bytes of a beat
                "burst": Burst,
                "cache": 4,
                "prot": 3,
            }
        )
        write = data.StructLayout({"data": 8 * data_bytes, "strb": data_bytes, "last": 1})
        write_response = data.StructLayout({"id": id_bits, "resp": Response})
        read = data.StructLayout({"id": id_bits, "data": 8 * data_bytes, "resp": Response, "last": 1})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(write)),
                "b": In(stream.Signature(write_response)),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(read)),
            }
        )


class Axi4LiteSignature(wiring.Signature):
    """A master port of AXI4-Lite with 32-bit data: aw, w, b, ar, r as above without bursts and identifiers (B1.1)."""

    def __init__(self, *, address_bits: int) -> None:
        if not 3 <= address_bits <= 64:
            raise ValueError(f"address_bits is {address_bits}: choose 3 to 64")
        self.address_bits = address_bits
        address = data.StructLayout({"addr": address_bits, "prot": 3})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(data.StructLayout({"data": 32, "strb": 4}))),
                "b": In(stream.Signature(data.StructLayout({"resp": Response}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({"data": 32, "resp": Response}))),
            }
        )
