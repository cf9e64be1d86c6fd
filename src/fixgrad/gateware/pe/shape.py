"""Sizes of a PE, and the structures that its parts exchange."""

from dataclasses import dataclass, fields

from amaranth.lib import data, enum

from fixgrad.errors import UsageError
from fixgrad.machine.parameters import TAPS_PER_WORD, Machine
from fixgrad.numbers import ACCUMULATOR_BITS

#: Largest side of a kernel: the instruction's fields have 4 bits.
MAX_SIDE = 15
#: Bits of a row or column number of a feature map.
COORDINATE_BITS = 10
#: Bits of a tap's number in its kernel.
TAP_BITS = 8
#: Runs of pixels that a plan holds for each axis. See `fixgrad.gateware.pe.planner` for why they suffice.
MAX_RUNS = 32


class Mode(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What a COMPUTE does, as its field `mode` encodes it."""

    FF = 0
    NG = 1
    WG = 2


@dataclass(frozen=True, slots=True)
class PeShape:
    """Sizes of a PE; words as in `fixgrad.machine.Machine`.

    Raises:
        UsageError: a memory's depth is not a power of two, which addresses modulo the depth need.
    """

    lanes: int
    input_words: int
    lane_words: int
    kernel_words: int
    gradient_words: int

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            words = getattr(self, field.name)
            if words & (words - 1):
                raise UsageError(f"{field.name} is {words}: the gateware's memories have a power of two of words")

    @classmethod
    def of(cls, machine: Machine) -> "PeShape":
        """The PE of a machine."""
        return cls(**{field.name: getattr(machine, field.name) for field in fields(cls)})

    @property
    def input_bits(self) -> int:
        """Bits of an address of the input buffer."""
        return (self.input_words - 1).bit_length()

    @property
    def lane_bits(self) -> int:
        """Bits of an address of the lane memories."""
        return (self.lane_words - 1).bit_length()

    @property
    def kernel_bits(self) -> int:
        """Bits of an address of the weights in the kernel queue."""
        return (self.kernel_words - 1).bit_length()

    @property
    def gradient_bits(self) -> int:
        """Bits of an address of the gradient memory."""
        return (self.gradient_words - 1).bit_length()

    @property
    def sum_bits(self) -> int:
        """Bits of a sum over the lanes, of products of at most 2**14."""
        return 14 + (self.lanes - 1).bit_length() + 2

    @property
    def tap_sum_bits(self) -> int:
        """Bits of a tap's sum over at most `lane_words` pixels and the lanes."""
        return self.sum_bits + self.lane_bits

    @property
    def accumulator_bits(self) -> int:
        """Bits of a lane's register: an accumulator from memory and the products of one pixel's taps never wrap in it."""
        return ACCUMULATOR_BITS + 2

    @property
    def weights_bits(self) -> int:
        """Bits of a word of the kernel queue."""
        return 8 * TAPS_PER_WORD

    def input_write(self) -> data.StructLayout:
        """A write to the input buffer: one byte a lane."""
        return data.StructLayout({"enable": 1, "address": self.input_bits, "data": 8 * self.lanes})

    def error(self) -> data.StructLayout:
        """A word of errors for the lane memories: one byte a lane."""
        return data.StructLayout({"address": self.lane_bits, "data": 8 * self.lanes})

    def kernel(self) -> data.StructLayout:
        """An entry as the load unit pushes it, one word at a time.

        `out`, `in_`: coordinates; of the last word. `weights`: tap t in place t mod 9. `last`: the kernel's last word.
        `end`: an end mark, which is a word of its own.
        """
        return data.StructLayout(
            {"out": self.lane_bits, "in_": self.input_bits, "weights": self.weights_bits, "last": 1, "end": 1}
        )

    def head(self) -> data.StructLayout:
        """The kernel whose turn it is. `first_word`: of its weights; `words`: how many."""
        return data.StructLayout(
            {"out": self.lane_bits, "in_": self.input_bits, "end": 1, "first_word": self.kernel_bits, "words": 5}
        )

    def command(self) -> data.StructLayout:
        """What a PE needs of a COMPUTE, beside the plan of its walk; fields as in the instruction table.

        `taps`: weights of a kernel. `keep_plan`: walk as in the COMPUTE before.
        """
        return data.StructLayout(
            {
                "mode": Mode,
                "clear": 1,
                "count_padding": 1,
                "buffer": self.input_bits,
                "slot_words": self.input_bits,
                "lane_base": self.lane_bits,
                "lane_slot_words": self.lane_bits,
                "gradient_base": self.gradient_bits,
                "number_on": 1,
                "taps": TAP_BITS,
                "keep_plan": 1,
            }
        )

    def run(self) -> data.StructLayout:
        """A run of pixels along one axis that meet the same taps (FF, NG), or the pixels of one tap (WG).

        `last`: pixels less one. `pixel`: word of the first one in a channel of the lane memory. `base`: word of what its
        tap 0 meets, in a channel of the input buffer, modulo the buffer. `taps`: FF, NG: the taps that meet a pixel of
        the image. `tap`: WG: the tap. `begin`, `end`: WG: those pixels of the run that meet a pixel of the image.
        """
        fields = {"last": self.lane_bits, "pixel": self.lane_bits, "base": self.input_bits}
        wg = data.StructLayout({"tap": 4, "begin": self.lane_bits + 1, "end": self.lane_bits + 1})
        return data.StructLayout({**fields, "of": data.UnionLayout({"taps": MAX_SIDE, "wg": wg})})

    def tap(self) -> data.StructLayout:
        """A tap of one axis. `offset`: words from the base of a pixel; `number`: its part of the tap's number."""
        return data.StructLayout({"offset": self.input_bits, "number": TAP_BITS})

    def axis(self) -> data.StructLayout:
        """One axis of a plan. `last_run`: runs less one. `empty`: no run. Steps in words from a pixel of a run to the next.

        `all_taps`: a bit for each tap, whether it meets a pixel or not.
        """
        return data.StructLayout(
            {
                "last_run": (MAX_RUNS - 1).bit_length(),
                "empty": 1,
                "pixel_step": self.lane_bits,
                "base_step": self.input_bits,
                "all_taps": MAX_SIDE,
            }
        )

    def plan_word(self) -> data.StructLayout:
        """One word of a plan on its way to a PE: what it is (one of three), for which axis, and where it belongs."""
        words = data.UnionLayout({"run": self.run(), "tap": self.tap(), "axis": self.axis()})
        kinds = {"is_run": 1, "is_tap": 1, "is_axis": 1}
        return data.StructLayout({**kinds, "columns": 1, "index": (MAX_RUNS - 1).bit_length(), "word": words})
