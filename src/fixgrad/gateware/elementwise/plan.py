"""What an ELEMENTWISE or CHANNEL_SUMS is once all that does not change while it runs has been worked out: its plan."""

from amaranth.hdl import signed
from amaranth.lib import data

from fixgrad.gateware.control.layouts import body_layout
from fixgrad.gateware.post.plan import offset_bits
from fixgrad.gateware.post.post_lane import SETTING
from fixgrad.machine import Machine

COORDINATE_BITS = 10
#: Rows and columns of a walk: micro-batches and pixels of CHANNEL_SUMS are the most.
ROW_BITS, COLUMN_BITS = body_layout("CHANNEL_SUMS")["micro_batches"].width, body_layout("CHANNEL_SUMS")["pixels"].width
#: A place on an axis of the first operand, which may lie far outside of it on both sides: 1023 strides of 1023 at most.
PLACE_BITS = 22
#: Number of a tap.
TAP_BITS = 8
CHANNEL_BITS = body_layout("ELEMENTWISE")["channels"].width

#: A move along an axis by `whole` places and `rest` parts of a place; there are `modulus` parts to a place.
MOVE = data.StructLayout({"whole": signed(COORDINATE_BITS + 1), "rest": COORDINATE_BITS})
#: An axis of a window: where the first tap of the first pixel lies, the moves from one pixel and from one tap to the next.
#: A tap meets a place where its rest is 0 and the place is below `limit`.
AXIS = data.StructLayout(
    {
        "start": MOVE,
        "by_pixel": MOVE,
        "by_tap": MOVE,
        "modulus": COORDINATE_BITS,
        "limit": COORDINATE_BITS,
        "endless": 1,
        "taps": COORDINATE_BITS,
    }
)


def plan_layout(machine: Machine) -> data.StructLayout:
    """The walk of an instruction. Offsets are in words of the map that they lie in.

    `sums`: it is a CHANNEL_SUMS. `rows`, `columns`, `channels`: what is walked over. `start_words`, `pixel_words`, `tap_words`,
    `row_words`: of the row axis, in words of the first operand: its moves, and a whole place. `first_words`, `second_words`,
    `mask_words`, `channel_words`: from one channel to the next of each map; `second_row`, `mask_row`, `target_row`: from one row
    to the next. `random_first`, `random_row`, `random_step`: random elements before the first pixel, from one row and one pixel
    to the next.
    """
    offset = offset_bits(machine)
    flags = ("sums", "uses_first", "uses_second", "uses_mask", "uses_argmax", "empty")
    channel_steps = ("first_words", "second_words", "mask_words", "channel_words")
    row_steps = ("second_row", "mask_row", "target_row")
    return data.StructLayout(
        {
            **dict.fromkeys(flags, 1),
            "channels": CHANNEL_BITS,
            "rows": ROW_BITS,
            "columns": COLUMN_BITS,
            "row_axis": AXIS,
            "column_axis": AXIS,
            **dict.fromkeys(("start_words", "pixel_words", "tap_words", "row_words"), offset),
            **dict.fromkeys(channel_steps, body_layout("ELEMENTWISE")["channel_words"].width),
            **dict.fromkeys(row_steps, body_layout("ELEMENTWISE")["row_words"].width),
            **dict.fromkeys(("random_first", "random_row"), 32),
            "random_step": body_layout("ELEMENTWISE")["random_batch"].width,
        }
    )


#: How values are made of operands, steady while an instruction runs. `square`: the second operand is the first.
ARITHMETIC = data.StructLayout(
    {
        "sums": 1,
        "square": 1,
        "combine": 2,
        "first_wide": 1,
        "second_wide": 1,
        "down": 5,
        "rectify": 1,
        "with_argmax": 1,
        "wide": 1,
        "images": 8,
        "setting": SETTING,
    }
)
