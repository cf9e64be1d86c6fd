"""The unit UPDATE of the machine: of every group, with the memory engines that they share."""

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.client import ReadPort, WritePort
from fixgrad.gateware.control.counters import activity_layout
from fixgrad.gateware.control.layouts import issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.gateware.update.cluster import FROM_GROUPS, UpdateCluster, pass_on
from fixgrad.gateware.update.shape import UpdateShape
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit


class Update(wiring.Component):
    """Executes UPDATE. Hold it in reset while no program runs.

    An UPDATE reads what it needs as soon as its waits are met, while those before it are under way: what it reads must not be
    what one of those writes, unless its waits say that they have completed.

    Args:
        machine: gives all sizes. `clusters` (attribute): the lanes that share an engine, in order. `lanes` (attribute): their
            number in all; group g is served by lane g // GROUPS_PER_UPDATE_LANE.

    Members, to the front end (arrays over the groups but for the fault and the activity):
        instructions: in, streams. done: out, a pulse for each instruction, in order: the memory has acknowledged all it wrote and
            its report is accepted.
        fault: out, stream: a transfer outside of [base, limit), or a burst that the memory answered with an error.
        activity: out, see `activity_layout`: busy if any group updates a parameter, else memory if any waits for it, else
            blocked. It is all zero while no group has an instruction.
        base, limit, stop: in, see `BurstSplitter`. quiet: out: no burst is outstanding.
    Members, to other units:
        table: out, array over the lanes of `TableRead`. report: out, array over the lanes of streams of `RANGE_REPORT`.
        take_gradient, gradient_address: out, arrays over the groups; gradient_wanted: in, array over
            the groups; gradients: in, array [group][PE]; see `Group`.
    Members, to the interconnect: read_ports, write_ports: out, [engine][channel], one engine of each kind for a cluster.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.clusters = UpdateShape.clusters(machine)
        self.lanes = sum(shape.lanes for shape in self.clusters)
        ports, groups, pes = self.clusters[0].ports, machine.groups, machine.pes_per_group
        super().__init__(
            {
                "instructions": In(stream.Signature(issued_layout(Unit.UPDATE))).array(groups),
                "done": Out(groups),
                "fault": Out(stream.Signature(UNIT_FAULT, always_ready=True)),
                "activity": Out(activity_layout(Unit.UPDATE, machine)),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "quiet": Out(1),
                "table": Out(TableRead()).array(self.lanes),
                "report": Out(stream.Signature(RANGE_REPORT)).array(self.lanes),
                "take_gradient": Out(pes).array(groups),
                "gradient_address": Out(PeShape.of(machine).gradient_bits).array(groups),
                "gradient_wanted": In(1).array(groups),
                "gradients": In(32).array(groups, pes),
                "read_ports": Out(ReadPort(ports)).array(len(self.clusters), ports.channels),
                "write_ports": Out(WritePort(ports)).array(len(self.clusters), ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane, quiet = 0, []
        found: dict[str, list[Value]] = {name: [] for name in ("busy", "memory", "blocked")}
        for number, shape in enumerate(self.clusters):
            m.submodules[f"cluster_{number}"] = cluster = UpdateCluster(self.machine, shape)
            for index in range(shape.lanes):
                for name in ("table", "report"):
                    pass_on(m, getattr(self, name)[lane], getattr(cluster, name)[index])
                for source in range(shape.sources):
                    self._group(m, cluster, index, source, lane * shape.sources + source)
                lane += 1
            for name, bits in found.items():
                bits += getattr(cluster, name)
            for name in ("base", "limit", "stop"):
                m.d.comb += getattr(cluster, name).eq(getattr(self, name))
            pass_on(m, self.read_ports[number], cluster.read_port)
            pass_on(m, self.write_ports[number], cluster.write_port)
            with m.If(cluster.fault.valid):
                m.d.comb += [self.fault.valid.eq(1), self.fault.payload.eq(cluster.fault.payload)]
            quiet.append(cluster.quiet)
        any_of = {name: Cat(bits).any() for name, bits in found.items()}
        m.d.comb += [
            self.quiet.eq(Cat(quiet).all()),
            self.activity.busy.eq(any_of["busy"]),
            self.activity.memory.eq(any_of["memory"] & ~any_of["busy"]),
            self.activity.blocked.eq(any_of["blocked"] & ~any_of["memory"] & ~any_of["busy"]),
        ]
        return m

    def _group(self, m: Module, cluster: UpdateCluster, lane: int, source: int, group: int) -> None:
        if group >= self.machine.groups:  # the last lane of an odd number of groups
            return
        pass_on(m, self.instructions[group], cluster.instructions[lane][source])
        pass_on(m, self.take_gradient[group], cluster.take_gradient[lane][source])
        pass_on(m, self.gradient_address[group], cluster.gradient_address[lane])
        for name in FROM_GROUPS:
            pass_on(m, getattr(self, name)[group], getattr(cluster, name)[lane][source], is_input=True)
        m.d.comb += self.done[group].eq(cluster.done[lane][source])
