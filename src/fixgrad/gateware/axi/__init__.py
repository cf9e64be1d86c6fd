"""AXI4 and AXI4-Lite: signatures, clean port names, stream elements, DMA engines and the interconnect between them."""

from fixgrad.gateware.axi.bus import Axi4LiteSignature, Axi4Signature, Response
from fixgrad.gateware.axi.ports import Chip, port_name

__all__ = ["Axi4LiteSignature", "Axi4Signature", "Chip", "Response", "port_name"]
