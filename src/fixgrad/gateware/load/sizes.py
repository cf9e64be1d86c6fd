"""Sizes of the load unit, and what its parts say to each other."""

from dataclasses import dataclass

from amaranth.lib import data, enum
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.control.layouts import INDEX_BITS, body_layout
from fixgrad.machine import Machine

#: Bytes that the kernel path moves in a cycle at least: the largest queue word and more.
KERNEL_BEAT_BYTES = 16
#: Width of a transfer's length: the weights of a LOAD_KERNELS, and the bytes around them.
LENGTH_BITS = body_layout("LOAD_KERNELS")["count"].width + body_layout("LOAD_KERNELS")["taps"].width + 1
#: Instructions whose data are asked for and not all put away.
JOBS = 16
#: Bits of a row or column number.
COORDINATE_BITS = body_layout("LOAD_INPUT")["in0_top"].width


class Kind(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the bytes of a transfer are."""

    WORDS = 0
    INDEX = 1
    WEIGHTS = 2
    PARAMS = 3


#: A transfer's tag: what it brings, and the place of its instruction in the program, for faults.
TAG = data.StructLayout({"kind": Kind, "index": INDEX_BITS})


@dataclass(frozen=True, slots=True)
class LoadSizes:
    """Sizes that follow from a machine, in bytes.

    Attributes:
        lanes: a word of a feature map. pes: of a group.
        chunk: what leaves the DMA engine in a cycle at most, a power of two.
        piece: part of a word that leaves it in a cycle: the whole word where that is no larger than a chunk.
        granule: largest power of two that divides a piece; feature maps begin at a multiple of it.
        beat: what the kernel path moves in a cycle, a power of two.
    """

    lanes: int
    pes: int
    chunk: int
    piece: int
    granule: int
    beat: int

    @classmethod
    def of(cls, machine: Machine) -> "LoadSizes":
        """The sizes of a machine."""
        lanes = machine.lanes
        chunk = min(MemoryPorts.of(machine).port_bytes, max(KERNEL_BEAT_BYTES, 1 << ceil_log2(lanes)))
        piece = max(size for size in range(1, chunk + 1) if lanes % size == 0)
        return cls(lanes, machine.pes_per_group, chunk, piece, piece & -piece, max(chunk, KERNEL_BEAT_BYTES))

    @property
    def granule_bits(self) -> int:
        """Bits of an address that choose a byte of a granule."""
        return ceil_log2(self.granule)


def transfer_layout() -> data.StructLayout:
    """What the DMA engine is asked for: bytes from an address on, with their tag.

    `last`: no more of the instruction follows that might go on where this one ends.
    """
    address_bits = body_layout("LOAD_INPUT")["source"].width
    return data.StructLayout({"address": address_bits, "length": LENGTH_BITS, "tag": TAG, "last": 1})


def rectangle_layout() -> data.StructLayout:
    """A rectangle as in the instruction: rows [top, bottom), columns [left, right)."""
    return data.StructLayout(dict.fromkeys(("top", "bottom", "left", "right"), COORDINATE_BITS))


def box_layout() -> data.StructLayout:
    """What is read of each channel, bounds included: rows `top` to `last_row`, columns `left` to `last_column`."""
    return data.StructLayout(dict.fromkeys(("top", "last_row", "left", "last_column"), COORDINATE_BITS))


def words_job(pes: int) -> data.StructLayout:
    """Words of a feature map to be put away.

    `is_error`: into lane memories, else into input buffers. `empty`: there are none. `box`: what arrives of each channel;
    `rectangles`: what each PE takes of it. `all_channels`: that arrive; each owner (a group, or a PE of a `channel_split`)
    has `channels` of them. `base`, `slot_words`: of the memory.
    """
    error, inputs = body_layout("LOAD_ERROR"), body_layout("LOAD_INPUT")
    return data.StructLayout(
        {
            "is_error": 1,
            "empty": 1,
            "box": box_layout(),
            "rectangles": data.ArrayLayout(rectangle_layout(), pes),
            "all_channels": error["total_channels"].width,
            "channels": error["channels"].width,
            "channel_split": 1,
            "base": inputs["buffer"].width,
            "slot_words": inputs["slot_words"].width,
        }
    )


def kernels_job(sizes: LoadSizes) -> data.StructLayout:
    """Entries for the kernel queues; fields as in the instruction. `index_at`, `data_at`: bytes to skip at the beginning."""
    fields = body_layout("LOAD_KERNELS")
    names = ("group", "pe", "count", "taps", "with_data", "transposed", "out_base", "in_base", "last")
    places = dict.fromkeys(("index_at", "data_at"), ceil_log2(sizes.beat))
    return data.StructLayout({**{name: fields[name].shape for name in names}, **places})


def params_job() -> data.StructLayout:
    """Entries for the step table; fields as in the instruction."""
    fields = body_layout("LOAD_PARAMS")
    return data.StructLayout({name: fields[name].shape for name in ("first", "count")})


def job_layout(sizes: LoadSizes) -> data.StructLayout:
    """Any of them: `kind` tells which (`Kind.INDEX` for kernels)."""
    of = data.UnionLayout({"words": words_job(sizes.pes), "kernels": kernels_job(sizes), "params": params_job()})
    return data.StructLayout({"kind": Kind, "of": of})
