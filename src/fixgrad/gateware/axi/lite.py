"""The slave end of AXI4-Lite: one access at a time on a plain register bus."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.bus import Axi4LiteSignature, Response


class LiteSlave(wiring.Component):
    """Turns AXI4-Lite accesses into pulses. Address and data of a write may come in any order (A3.3.1).

    Members:
        bus: AXI4-Lite, from the master.
        write: a pulse: `address`, `write_data` and `write_strobes` are valid; `write_error` is looked at in the same cycle.
        read: a pulse: `address` is valid. `read_data` and `read_error` are looked at in the first cycle after it without
            `read_wait`.
        address: in bytes; the lowest two bits are 0.
    """

    def __init__(self, address_bits: int) -> None:
        super().__init__(
            {
                "bus": In(Axi4LiteSignature(address_bits=address_bits)),
                "address": Out(address_bits),
                "write": Out(1),
                "write_data": Out(32),
                "write_strobes": Out(4),
                "write_error": In(1),
                "read": Out(1),
                "read_wait": In(1),
                "read_data": In(32),
                "read_error": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        has_address, has_data, is_read, is_reading = Signal(), Signal(), Signal(), Signal()
        is_free = Signal()
        # An access holds its address until its response is taken, so the address register serves reads and writes.
        m.d.comb += [
            is_free.eq(~has_address & ~bus.b.valid & ~bus.r.valid & ~is_reading),
            bus.aw.ready.eq(is_free),
            bus.ar.ready.eq(is_free & ~bus.aw.valid),
            bus.w.ready.eq(~has_data),
            self.write.eq(has_address & has_data & ~is_read),
            self.read.eq(has_address & is_read),
        ]
        with m.If(bus.aw.valid & bus.aw.ready):
            m.d.sync += [has_address.eq(1), is_read.eq(0), self.address.eq(bus.aw.payload.addr & ~3)]
        with m.Elif(bus.ar.valid & bus.ar.ready):
            m.d.sync += [has_address.eq(1), is_read.eq(1), self.address.eq(bus.ar.payload.addr & ~3)]
        with m.If(bus.w.valid & bus.w.ready):
            m.d.sync += [has_data.eq(1), self.write_data.eq(bus.w.payload.data), self.write_strobes.eq(bus.w.payload.strb)]
        with m.If(bus.b.ready):
            m.d.sync += bus.b.valid.eq(0)
        with m.If(bus.r.ready):
            m.d.sync += bus.r.valid.eq(0)
        with m.If(self.write):
            m.d.sync += [has_address.eq(0), has_data.eq(0), bus.b.valid.eq(1)]
            with m.If(self.write_error):
                m.d.sync += bus.b.payload.resp.eq(Response.SLVERR)
            with m.Else():
                m.d.sync += bus.b.payload.resp.eq(Response.OKAY)
        m.d.sync += is_reading.eq(self.read | (is_reading & self.read_wait))
        with m.If(self.read):
            m.d.sync += has_address.eq(0)
        with m.If(is_reading & ~self.read_wait):
            m.d.sync += [bus.r.valid.eq(1), bus.r.payload.data.eq(self.read_data)]
            with m.If(self.read_error):
                m.d.sync += bus.r.payload.resp.eq(Response.SLVERR)
            with m.Else():
                m.d.sync += bus.r.payload.resp.eq(Response.OKAY)
        return m
