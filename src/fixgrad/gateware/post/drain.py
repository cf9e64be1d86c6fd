"""Takes accumulators out of the groups and through the post-processors, a word a cycle, when all that a word needs is there.

    cycle 0   an item is issued
    1         its address is with the groups (`GROUP_DRAIN_LATENCY` more until the word comes)
    5         word, mask, places, bias or random element enter the post-processors (`POST_LATENCY`)
    13        codes
    16        words with addresses
"""

from itertools import pairwise

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import sum_of
from fixgrad.gateware.elementwise.requantised import requantised_layout
from fixgrad.gateware.pe.group import GROUP_DRAIN_LATENCY
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.post.channel_data import QUEUE_VALUES
from fixgrad.gateware.post.map_reader import QUEUE_WORDS
from fixgrad.gateware.post.output import Output, addressed_word
from fixgrad.gateware.post.plan import offset_bits, plan_layout, served_groups
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.gateware.post.post_processor import POST_LATENCY, SETTLE_CYCLES, STATISTICS, PostProcessor
from fixgrad.gateware.post.walk import item_layout
from fixgrad.gateware.post.word_writer import DEPTH
from fixgrad.machine import Machine
from fixgrad.numbers import ACCUMULATOR_BITS

#: Cycles from the issue of an item until its word of accumulators.
WORD_LATENCY = GROUP_DRAIN_LATENCY + 1
#: Cycles from the issue of the last item until everything is measured and its first output has left; see `Drain.ended`.
END_CYCLES = WORD_LATENCY + SETTLE_CYCLES + 4


class Drain(wiring.Component):
    """The post-processors and what feeds them.

    Members:
        plan: in, steady from `begin` (in, a pulse) until all has been measured.
        items: in, stream of `item_layout`.
        drain, drain_address, drained: arrays of groups, see `fixgrad.gateware.pe.group.Group`.
        For each post-processor: mask, places, table (in, streams) with mask_level, places_level, table_level (in): see
            `MapReader`, `ChannelReads`. words, room: see `WordWriter`. errors (out), promise (out, a bit each), sums_room
            (in): see `SumWrites`. statistics: out.
        issued: out, an item is taken. ended: out, it was the last one. working: out, between the words that an item makes.
        blocked: out, an item waits for room, not for data.
        elementwise: in, see `requantised_layout`, and codes (out) of the first post-processor: only with an elementwise unit.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, lanes, number = machine, machine.lanes, machine.post_processors
        shape, groups = PeShape.of(machine), machine.groups
        shares = {"elementwise": In(requantised_layout(machine)), "codes": Out(CODE_BITS * lanes)}
        word_of_lanes = In(stream.Signature(8 * lanes)).array(number)
        super().__init__(
            {
                "plan": In(plan_layout(machine)),
                "begin": In(1),
                "items": In(stream.Signature(item_layout(machine))),
                "drain": Out(machine.pes_per_group).array(groups),
                "drain_address": Out(shape.lane_bits).array(groups),
                "drained": In(lanes * ACCUMULATOR_BITS).array(groups),
                "mask": word_of_lanes,
                "places": word_of_lanes,
                "table": In(stream.Signature(ACCUMULATOR_BITS)).array(number),
                "mask_level": In(range(QUEUE_WORDS + 1)).array(number),
                "places_level": In(range(QUEUE_WORDS + 1)).array(number),
                "table_level": In(range(QUEUE_VALUES + 1)).array(number),
                "words": Out(addressed_word(machine)).array(number),
                "room": In(range(DEPTH + 1)).array(number),
                "errors": Out(data.StructLayout({"valid": 1, "sum": ACCUMULATOR_BITS})).array(number),
                "promise": Out(number),
                "sums_room": In(1),
                "statistics": Out(STATISTICS).array(number),
                **(shares if machine.elementwise_lanes else {}),
                "issued": Out(1),
                "ended": Out(1),
                "working": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.output = output = Output(self.machine)
        tag = data.StructLayout(
            {
                "valid": 1,
                "active": self.machine.post_processors,
                "turn": len(self.items.payload.turn),
                "place": len(self.items.payload.place),
                "makes_words": 1,
                "ends_window": 1,
                "ends_channel": 1,
                "random": 32,
                "offset": offset_bits(self.machine),
            }
        )
        tags = [Signal(tag, name=f"tag_{cycle}") for cycle in range(WORD_LATENCY + POST_LATENCY + 1)]
        for before, after in pairwise(tags):
            m.d.sync += after.eq(before)
        self._issue(m, tags, output)
        self._ask(m)
        for index in range(self.machine.post_processors):
            self._process(m, index, tags, output, platform)
        last = tags[-1]
        m.d.comb += [
            output.plan.eq(self.plan),
            output.begin.eq(self.begin),
            output.starts.eq(last.valid & last.makes_words),
            output.offset.eq(last.offset),
            output.active.eq(last.active),
        ]
        for mine, theirs in zip(self.words, output.words, strict=True):
            m.d.comb += mine.eq(theirs)
        return m

    def _issue(self, m: Module, tags: list[data.View], output: Output) -> None:
        """Whether the item at hand may go: its data are there, and there is room for what it makes."""
        plan, item, ng = self.plan, self.items.payload, self.plan.setting.ng
        wait, makes, inflight = Signal(plan.spacing.shape()), Signal(plan.window.shape()), Signal(range(2 * DEPTH))
        waiting = tags[1 : WORD_LATENCY + 1]
        promised = sum_of([each.valid for each in waiting])
        channels = sum_of([each.valid & each.ends_channel for each in waiting])
        has_data, has_room = [], []
        for index, room in enumerate(self.room):
            idle = ~item.active[index] | item.empty
            has_data.append(
                idle
                | (
                    (~plan.uses_mask | (self.mask_level[index] > promised))
                    & (~plan.uses_places | (self.places_level[index] > promised))
                    & (~plan.uses_table | (self.table_level[index] > channels))
                )
            )
            has_room.append(idle | (room >= inflight + makes))
        data_here, room_here, is_due = Signal(), Signal(), Signal()
        m.d.comb += [
            makes.eq(Mux(item.empty, 0, Mux(ng, plan.window, Mux(item.stores, plan.parts, 0)))),
            data_here.eq(Cat(has_data).all()),
            room_here.eq(Cat(has_room).all() & (~plan.uses_sums | self.sums_room)),
            is_due.eq(self.items.valid & (wait == 0)),
            self.issued.eq(is_due & data_here & room_here),
            self.blocked.eq(is_due & data_here & ~room_here),
            self.working.eq(wait != 0),
            self.items.ready.eq((wait == 0) & data_here & room_here),
            self.ended.eq(self.issued & item.ends),
            self.promise.eq(Mux(self.issued & item.ends_channel & plan.uses_sums, item.active, 0)),
        ]
        with m.If(self.issued):
            m.d.sync += wait.eq(plan.spacing - 1)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        m.d.sync += inflight.eq(inflight + Mux(self.issued, makes, 0) - output.left)
        tag = tags[0]
        m.d.comb += [
            tag.valid.eq(self.issued & ~item.empty),
            tag.makes_words.eq(makes != 0),
            tag.ends_window.eq(item.stores),
            *(tag[name].eq(item[name]) for name in ("active", "turn", "place", "ends_channel", "random", "offset")),
        ]

    def _ask(self, m: Module) -> None:
        """The groups that are asked for a word; a register lies before them."""
        item, served = self.items.payload, served_groups(self.machine)
        address = Signal.like(item.address)
        m.d.sync += address.eq(item.address)
        for group, (drain, drain_address) in enumerate(zip(self.drain, self.drain_address, strict=True)):
            index, turn = divmod(group, served)
            mine = self.issued & item.active[index]
            if served > 1:
                mine = mine & (item.turn == turn)
            m.d.sync += drain.eq(Mux(mine, item.pe, 0))
            m.d.comb += drain_address.eq(address)

    def _process(self, m: Module, index: int, tags: list[data.View], output: Output, platform: object) -> None:
        """One post-processor: its word, what goes with it, and its results."""
        plan, ng, served = self.plan, self.plan.setting.ng, served_groups(self.machine)
        post = PostProcessor(self.machine)
        m.submodules[f"post_processor_{index}"] = shared(post, platform)
        tag, word = tags[WORD_LATENCY], post.words.payload
        takes = Signal(name=f"takes_{index}")
        groups = list(self.drained)[index * served : (index + 1) * served]
        value: Value = self.table[index].payload
        m.d.comb += [
            takes.eq(tag.valid & tag.active[index]),
            Value.cast(post.setting).eq(Value.cast(plan.setting)),
            post.bias_shift.eq(plan.bias_shift),
            post.images.eq(plan.images),
            post.window.eq(plan.window),
            post.begin.eq(self.begin),
            post.words.valid.eq(takes),
            word.accumulators.eq(Array(groups)[tag.turn] if served > 1 else groups[0]),
            word.activations.eq(self.mask[index].payload),
            word.argmax.eq(self.places[index].payload),
            word.bias.eq(Mux(plan.uses_table & ~ng, value, 0)),
            word.element.eq(value + tag.random),
            word.place.eq(tag.place),
            word.ends_window.eq(tag.ends_window & ~ng),
            word.ends_channel.eq(tag.ends_channel & plan.uses_sums),
            self.mask[index].ready.eq(takes & plan.uses_mask),
            self.places[index].ready.eq(takes & plan.uses_places),
            self.table[index].ready.eq(takes & tag.ends_channel & plan.uses_table),
            self.errors[index].valid.eq(post.bias_sum_valid),
            self.errors[index].sum.eq(post.bias_sum),
            self.statistics[index].eq(post.statistics),
            output.codes[index].eq(post.codes.codes),
            output.places[index].eq(post.codes.places),
        ]
        if index == 0 and self.machine.elementwise_lanes:
            self._share(m, post)

    def _share(self, m: Module, post: PostProcessor) -> None:
        """Words of the elementwise unit in place of those of the groups. No POST is under way then."""
        given, word = self.elementwise, post.words.payload
        m.d.comb += self.codes.eq(post.codes.codes)
        with m.If(given.active):
            m.d.comb += [
                Value.cast(post.setting).eq(Value.cast(given.setting)),
                post.images.eq(given.images),
                post.window.eq(1),
                post.begin.eq(given.begin),
                post.words.valid.eq(given.valid),
                *(word[name].eq(given[name]) for name in ("accumulators", "activations", "element")),
                word.ends_channel.eq(0),
            ]
