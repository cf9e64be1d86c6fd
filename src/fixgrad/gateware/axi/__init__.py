"""AXI4 and AXI4-Lite: signatures, clean port names, stream elements, DMA engines and the interconnect between them."""

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.axi.bus import Axi4LiteSignature, Axi4Signature, Response
from fixgrad.gateware.axi.interconnect import Interconnect
from fixgrad.gateware.axi.ports import Chip, port_name
from fixgrad.gateware.axi.reader import Reader
from fixgrad.gateware.axi.writer import Writer

__all__ = [
    "Axi4LiteSignature",
    "Axi4Signature",
    "Chip",
    "Interconnect",
    "MemoryPorts",
    "Reader",
    "Response",
    "Writer",
    "port_name",
]
