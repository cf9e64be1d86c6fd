"""What a POST is once all that does not change while it runs has been worked out: its plan."""

from amaranth.hdl import Mux, Value
from amaranth.lib import data

from fixgrad.errors import UsageError
from fixgrad.gateware.arithmetic.fixed_point import product_of_words
from fixgrad.gateware.control.layouts import INDEX_BITS, body_layout
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.gateware.post.post_lane import SETTING
from fixgrad.gateware.post.range_registers import REGISTER_BITS
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS

COORDINATE_BITS = 10
WINDOW_BITS = 3
#: Bits of a number of channels, of all groups and PEs together.
CHANNELS_BITS = body_layout("POST")["total_channels"].width

#: Bits of the channels of a post-processor, whether they exist or not.
ALL_CHANNELS_BITS = 20

RECTANGLE = data.StructLayout(dict.fromkeys(("top", "bottom", "left", "right"), COORDINATE_BITS))


def served_groups(machine: Machine) -> int:
    """Groups of a post-processor: p serves groups p n to (p + 1) n."""
    return machine.groups // machine.post_processors


def lane_shift(machine: Machine) -> int:
    """log2 of the lanes, which is log2 of the bytes of a word of a feature map.

    Raises:
        UsageError: the lanes are no power of two; words would then straddle the beats of the memory's ports.
    """
    lanes = machine.lanes
    if lanes & (lanes - 1):
        raise UsageError(f"machine {machine.name}: lanes is {lanes}: the gateware's feature maps need a power of two")
    return lanes.bit_length() - 1


def offset_bits(machine: Machine) -> int:
    """Bits of a distance between two words of a feature map."""
    return ADDRESS_BITS - lane_shift(machine)


def plan_layout(machine: Machine) -> data.StructLayout:
    """A POST with its entry of the step table. Names of the instruction table mean the same here; offsets are in words.

    `box`: all pixels. `all_channels`: channels of one post-processor, `count`: channels that exist at all, at most those of
    all post-processors. `walk_rows`, `walk_columns`: window in which accumulators are read (NG: 1 x 1). `window`: elements of
    the pooling window. `row_step`, `column_step`: from one window's output to the next one's. `first`, `map_first`: first
    output, first word of mask and places. `post_words`, `map_post_words`: from one post-processor to the next.
    `table`: bias (FF) or first random elements (NG). `places`: argmax. `parts`: words of `lanes` bytes that an output makes.
    `spacing`: cycles from one word of accumulators to the next.
    """
    fields = body_layout("POST")
    shape, offset, window = PeShape.of(machine), offset_bits(machine), 2 * WINDOW_BITS
    kept = ("channels", "channel_words", "row_words", "mask_channel_words", "mask_row_words", "pool_columns", "images")
    flags = ("wide", "pooled", "channel_split", "with_argmax", "uses_mask", "uses_places", "uses_table", "uses_sums", "empty")
    return data.StructLayout(
        {
            "index": INDEX_BITS,
            "statistics": REGISTER_BITS,
            "setting": SETTING,
            "bias_shift": 6,
            **dict.fromkeys(flags, 1),
            **{name: fields[name].width for name in kept},
            "rectangles": data.ArrayLayout(RECTANGLE, machine.pes_per_group),
            "box": RECTANGLE,
            "lane_base": shape.lane_bits,
            "lane_slot_words": shape.lane_bits,
            "all_channels": ALL_CHANNELS_BITS,
            "count": CHANNELS_BITS,
            "walk_rows": WINDOW_BITS,
            "walk_columns": WINDOW_BITS,
            "window": window,
            "row_step": fields["row_words"].width + WINDOW_BITS,
            "column_step": WINDOW_BITS,
            **dict.fromkeys(("first", "post_words", "map_first", "map_post_words"), offset),
            "random_first": 32,
            "random_row_step": 32,
            "random_batch": fields["random_batch"].width,
            **dict.fromkeys(("target", "mask", "places", "table", "sums"), ADDRESS_BITS),
            "parts": 2,
            "spacing": window,
        }
    )


def times(value: Value, constant: int, width: int) -> Value:
    """`value` (unsigned) times a constant, by shifts and adders, modulo 2**width."""
    return product_of_words(value, Value.cast(constant), width)


def channels_of(plan: data.View, number: int) -> Value:
    """Channels that post-processor `number` has of those that exist."""
    first = times(plan.all_channels, number, ALL_CHANNELS_BITS + 4) if number else Value.cast(0)
    left = plan.count - first
    return Mux(left < 0, 0, Mux(left > plan.all_channels, plan.all_channels, left))[:CHANNELS_BITS]
