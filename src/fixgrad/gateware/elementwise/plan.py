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
#: An axis of a window: where the first pixel lies, the move from one pixel to the next. Of its taps only those that lie at a
#: place are gone through: the first one is number `rest`, the others follow in steps of `tap_step`, and of a place to the right,
#: or to the left if `backward`. They meet it if it is below `limit`, or if the axis is `endless`.
AXIS = data.StructLayout(
    {
        "start": MOVE,
        "by_pixel": MOVE,
        "modulus": COORDINATE_BITS,
        "taps": COORDINATE_BITS,
        "tap_step": COORDINATE_BITS,
        "backward": 1,
        "limit": COORDINATE_BITS,
        "endless": 1,
    }
)
#: What belongs to a row: words of the first operand, and numbers of its taps. Of the first pixel (`start`), from one pixel to the
#: next (`by_pixel`), from one tap that lies at a place to the next (`by_tap`), and what a place or a single tap more makes.
OF_ROWS = ("start", "by_pixel", "by_tap", "more")


def plan_layout(machine: Machine) -> data.StructLayout:
    """The walk of an instruction. Offsets are in words of the map that they lie in.

    `sums`: it is a CHANNEL_SUMS. `rows`, `columns`, `channels`: what is walked over. `row_words`, `row_numbers`: see `OF_ROWS`.
    `first_words`, `second_words`,
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
            "row_words": data.StructLayout(dict.fromkeys(OF_ROWS, offset)),
            "row_numbers": data.StructLayout(dict.fromkeys(OF_ROWS, TAP_BITS)),
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
