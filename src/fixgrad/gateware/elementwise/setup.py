"""Turns an ELEMENTWISE or CHANNEL_SUMS into its plan: places on the axes, products of fields one after the other, its table entry.

    cycles   about 15, 24 more for the divisions of a transposed window, and a cycle for each bit of the products
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.divider import Divider
from fixgrad.gateware.arithmetic.fixed_point import limit_value, shift_left
from fixgrad.gateware.control.layouts import body, elementwise_entry_layout, issued_layout
from fixgrad.gateware.control.step_table import TableRead
from fixgrad.gateware.elementwise.coefficients import COEFFICIENTS, FACTOR_BITS, OTHER_FACTOR_BITS
from fixgrad.gateware.elementwise.plan import ARITHMETIC, COORDINATE_BITS, plan_layout
from fixgrad.gateware.post.plan import offset_bits
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, MAXIMUM
from fixgrad.machine.instructions import BY_NAME, Unit

_FACTOR_BITS = 20


class Setup(wiring.Component):
    """Works out one plan at a time.

    Members:
        instruction: in, steady while it is set up. begin: in, a pulse. done: out, plan, arithmetic and constants hold from now on.
        table: the step table.
        plan: out, see `plan_layout`. arithmetic: out, see `ARITHMETIC`. constants: out, see `COEFFICIENTS`: those of all channels
            where no record has them.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "instruction": In(issued_layout(Unit.POST, machine)),
                "begin": In(1),
                "done": Out(1),
                "table": Out(TableRead()),
                "plan": Out(plan_layout(machine)),
                "arithmetic": Out(ARITHMETIC),
                "constants": Out(COEFFICIENTS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._map, self._sums = body(self.instruction, "ELEMENTWISE"), body(self.instruction, "CHANNEL_SUMS")
        self._is_sums, self._is_transposed = Signal(name="is_sums"), Signal(name="is_transposed")
        names = ("asked", "answered", "busy", "divided", "worked_out")
        asked, answered, busy, divided, worked_out = (Signal(name=name) for name in names)
        m.d.comb += [
            self._is_sums.eq(self.instruction.opcode == BY_NAME["CHANNEL_SUMS"].opcode),
            self._is_transposed.eq(~self._is_sums & (self._map.operands != 0) & self._map.transposed),
            self.table.index.valid.eq(busy & ~asked & ~self._is_sums),
            self.table.index.payload.eq(self._map.param),
            self.done.eq(busy & (answered | self._is_sums) & worked_out),
        ]
        with m.If(self.begin):
            m.d.sync += [busy.eq(1), asked.eq(0), answered.eq(0)]
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)
        with m.If(self.table.index.valid & self.table.index.ready):
            m.d.sync += asked.eq(1)
        with m.If(self.table.entry.valid):
            m.d.sync += answered.eq(1)
        self._copy(m)
        self._set_arithmetic(m)
        quotients = self._divide(m, divided)
        self._set_axes(m, quotients)
        self._multiply(m, divided, worked_out)
        return m

    def _copy(self, m: Module) -> None:
        """What is taken as it is."""
        plan, of_map, of_sums, is_sums = self.plan, self._map, self._sums, self._is_sums
        uses_first = of_map.operands != 0
        errors = of_map.combine == ERRORS_OF_MAXIMA
        m.d.comb += [
            plan.sums.eq(is_sums),
            plan.channels.eq(Mux(is_sums, of_sums.channels, of_map.channels)),
            plan.rows.eq(Mux(is_sums, of_sums.micro_batches, of_map.rows)),
            plan.columns.eq(Mux(is_sums, of_sums.pixels, of_map.columns)),
            plan.empty.eq((plan.channels == 0) | (plan.rows == 0) | (plan.columns == 0)),
            plan.uses_first.eq(is_sums | uses_first),
            plan.uses_second.eq(Mux(is_sums, of_sums.products & ~self.arithmetic.square, of_map.operands[1])),
            plan.uses_mask.eq(~is_sums & of_map.masked),
            plan.uses_argmax.eq(~is_sums & uses_first & errors),
            plan.first_words.eq(Mux(is_sums, of_sums.channel_words, of_map.first_channel_words)),
            plan.second_words.eq(of_map.second_channel_words),
            plan.second_row.eq(of_map.second_row_words),
            plan.mask_words.eq(of_map.mask_channel_words),
            plan.mask_row.eq(of_map.mask_row_words),
            plan.channel_words.eq(of_map.channel_words),
            plan.target_row.eq(of_map.row_words),
            plan.random_step.eq(of_map.random_batch),
        ]

    def _set_arithmetic(self, m: Module) -> None:
        of_map, of_sums, is_sums, arithmetic = self._map, self._sums, self._is_sums, self.arithmetic
        setting = arithmetic.setting
        entry = data.View(elementwise_entry_layout(), Value.cast(self.table.entry.payload))
        is_same = (of_sums.first == of_sums.second) & (of_sums.first_wide == of_sums.second_wide)
        m.d.comb += [
            arithmetic.sums.eq(is_sums),
            arithmetic.square.eq(is_sums & is_same),
            arithmetic.combine.eq(Mux(is_sums, 0, of_map.combine)),
            arithmetic.first_wide.eq(Mux(is_sums, of_sums.first_wide, of_map.first_wide)),
            arithmetic.second_wide.eq(Mux(is_sums, of_sums.second_wide, of_map.second_wide)),
            arithmetic.rectify.eq(of_map.rectify),
            arithmetic.with_argmax.eq((of_map.operands != 0) & (of_map.combine == MAXIMUM) & of_map.with_argmax),
            arithmetic.wide.eq(of_map.out_bits > 8),
            arithmetic.images.eq(of_map.images),
            # A post-processor's lane in NG: masked where `rectify` says so, with random bits or none, without a window.
            setting.ng.eq(1),
            setting.rectify.eq(of_map.masked),
            setting.limit.eq(limit_value(of_map.out_bits, CODE_BITS)),
        ]
        with m.If(self.table.entry.valid):
            m.d.sync += [
                *(setting[name].eq(entry[name]) for name in ("stochastic", "shift", "key_low", "key_high")),
                arithmetic.down.eq(entry.down),
                self.constants.a.eq(shift_left(of_map.factor, entry.left_first[:5], FACTOR_BITS)),
                self.constants.b.eq(shift_left(Const(1, 1), entry.left_second[:5], OTHER_FACTOR_BITS)),
            ]

    def _divide(self, m: Module, divided: Signal) -> dict[str, tuple[Signal, Signal]]:
        """Quotient and remainder of the padding by the stride, of rows and columns, where the window is transposed."""
        of_map, results = self._map, {}
        m.submodules.divider = divider = Divider(COORDINATE_BITS, COORDINATE_BITS)
        number, starts = Signal(range(3)), Signal()
        m.d.comb += [divider.begin.eq(starts), divided.eq(number == 2)]
        with m.If(starts):
            m.d.sync += starts.eq(0)
        with m.Switch(number):
            for index, axis in enumerate(("rows", "columns")):
                quotient, rest = (Signal(COORDINATE_BITS, name=f"{name}_{axis}") for name in ("pad", "pad_rest"))
                results[axis] = quotient, rest
                with m.Case(index):
                    m.d.comb += [divider.dividend.eq(of_map[f"pad_{axis}"]), divider.divisor.eq(of_map[f"stride_{axis}"])]
                    with m.If(divider.done):
                        m.d.sync += [quotient.eq(divider.quotient), rest.eq(divider.remainder)]
                        m.d.sync += [number.eq(number + 1), starts.eq(index == 0)]
        with m.If(self.begin):
            m.d.sync += [number.eq(Mux(self._is_transposed, 0, 2)), starts.eq(self._is_transposed)]
        return results

    def _set_axes(self, m: Module, quotients: dict[str, tuple[Signal, Signal]]) -> None:
        of_map, is_sums = self._map, self._is_sums
        plain = is_sums | (of_map.operands == 0)
        for axis, (pad, pad_rest) in quotients.items():
            out, stride = self.plan[f"{axis.removesuffix('s')}_axis"], of_map[f"stride_{axis}"]
            m.d.comb += [
                out.limit.eq(of_map[f"first_{axis}"]),
                out.taps.eq(Mux(plain, 1, of_map[f"kernel_{axis}"])),
                out.endless.eq(is_sums),
            ]
            with m.If(is_sums):
                m.d.comb += [out.modulus.eq(1), out.tap_step.eq(1), out.by_pixel.whole.eq(1)]
            with m.Elif(self._is_transposed):
                m.d.comb += [
                    out.modulus.eq(stride),
                    out.tap_step.eq(stride),
                    out.backward.eq(1),
                    out.start.whole.eq(pad),
                    out.start.rest.eq(pad_rest),
                    out.by_pixel.whole.eq(stride == 1),
                    out.by_pixel.rest.eq(stride != 1),
                ]
            with m.Else():
                m.d.comb += [
                    out.modulus.eq(1),
                    out.tap_step.eq(1),
                    out.start.whole.eq(-of_map[f"pad_{axis}"]),
                    out.by_pixel.whole.eq(stride),
                ]

    def _multiply(self, m: Module, divided: Signal, worked_out: Signal) -> None:
        """result = sum + x y, a bit of y a cycle; signs are those of x."""
        plan, of_map, width = self.plan, self._map, offset_bits(self.machine)
        axis, words, numbers = plan.row_axis, plan.row_words, plan.row_numbers
        products = [
            (words.start, axis.start.whole, of_map.first_row_words, 0),
            (words.by_pixel, axis.by_pixel.whole, of_map.first_row_words, 0),
            (numbers.start, axis.start.rest, of_map.kernel_columns, 0),
            (numbers.by_tap, axis.tap_step, of_map.kernel_columns, 0),
            (plan.random_first, of_map.random_batch, of_map.random_pixel, of_map.random_image),
            (plan.random_row, of_map.random_row, of_map.random_batch, 0),
        ]
        step, loaded = Signal(range(len(products) + 1)), Signal()
        x, y, sum_ = Signal(width), Signal(_FACTOR_BITS), Signal(width)
        m.d.comb += [
            worked_out.eq(step == len(products)),
            words.more.eq(of_map.first_row_words),
            words.by_tap.eq(Mux(self._is_transposed, -of_map.first_row_words, of_map.first_row_words)),
            numbers.more.eq(of_map.kernel_columns),
        ]
        with m.If(self.begin):
            m.d.sync += [step.eq(Mux(self._is_sums, len(products), 0)), loaded.eq(0)]
            m.d.sync += [words.start.eq(0), words.by_pixel.eq(self._sums.batch_words)]
        with m.Elif(divided & ~worked_out & ~loaded):
            m.d.sync += loaded.eq(1)
            with m.Switch(step):
                for number, (_, of_x, of_y, start) in enumerate(products):
                    with m.Case(number):
                        m.d.sync += [x.eq(of_x), y.eq(of_y), sum_.eq(start)]
        with m.Elif(loaded & (y != 0)):
            m.d.sync += [y.eq(y >> 1), x.eq(Cat(Const(0, 1), x)), sum_.eq(sum_ + Mux(y[0], x, 0))]
        with m.Elif(loaded):
            m.d.sync += [loaded.eq(0), step.eq(step + 1)]
            with m.Switch(step):
                for number, (result, *_) in enumerate(products):
                    with m.Case(number):
                        m.d.sync += result.eq(sum_)
