"""The instruction set, written once: encoder, decoder, disassembler, generator, gateware and documentation read this table.

An instruction is 128 bytes, little endian, fields packed from bit 0 in the order of the table. All start with the same
header. Each unit takes its instructions in program order and counts those that it has completed; an instruction begins when
every unit that it waits for has completed at least as many instructions as it says. So dependencies are explicit, always
point backwards, and cannot deadlock. COMPUTE runs in all groups, each at its own pace: its count is that of the slowest.
UPDATE instructions name a group and each group has a queue of its own, which counts its own: a wait for n says that every
group has completed n of its own. A group that has nothing to update gets an UPDATE of no parameters.
"""

from fixgrad.machine.elementwise_instructions import ELEMENTWISE_KINDS, ELEMENTWISE_STEP_PARAMETERS
from fixgrad.machine.instruction_kinds import ADDRESS_BITS, WAIT_BITS, Field, Kind, Parameter, Unit, address
from fixgrad.machine.parameters import Machine

__all__ = [
    "ADDRESS_BITS",
    "ALL_KINDS",
    "ALL_STEP_PARAMETERS",
    "BY_NAME",
    "BY_OPCODE",
    "HEADER",
    "INSTRUCTION_BYTES",
    "INSTRUCTION_SET_VERSION",
    "KINDS",
    "STEP_ENTRY_BYTES",
    "STEP_PARAMETERS",
    "WAIT_BITS",
    "Field",
    "Kind",
    "Parameter",
    "Unit",
    "kinds_of",
    "step_parameters_of",
]

INSTRUCTION_BYTES = 128
#: Raised with every change of meaning that names, widths and order of the fields do not show.
INSTRUCTION_SET_VERSION = 1

HEADER: tuple[Field, ...] = (
    Field("opcode", 8, "kind of instruction"),
    Field("layer", 8, "number of the layer, for counters and messages; the machine ignores it"),
    Field("wait_load", WAIT_BITS, "LOAD instructions that must have completed"),
    Field("wait_compute", WAIT_BITS, "COMPUTE instructions that every group must have completed"),
    Field("wait_post", WAIT_BITS, "POST instructions that must have completed"),
    Field("wait_update", WAIT_BITS, "UPDATE instructions that every group must have completed"),
)


def _rectangles(prefix: str, what: str) -> tuple[Field, ...]:
    """Four rectangles, one for each PE of a group: rows [top, bottom), columns [left, right). Equal ends: none."""
    return tuple(
        Field(f"{prefix}{pe}_{side}", 10, f"PE {pe}: {side} edge of {what}")
        for pe in range(4)
        for side in ("top", "bottom", "left", "right")
    )


_GEOMETRY = (
    Field("kernel_rows", 4, "rows of a kernel"),
    Field("kernel_columns", 4, "columns of a kernel"),
    Field("stride_rows", 4, "stride of the layer (in NG: dilation of the error)"),
    Field("stride_columns", 4, "likewise"),
    Field("pad_rows", 4, "rows of zero padding of the layer"),
    Field("pad_columns", 4, "likewise"),
    Field("dilation_rows", 4, "dilation of the kernel"),
    Field("dilation_columns", 4, "likewise"),
)

KINDS: tuple[Kind, ...] = (
    Kind(
        "HALT",
        0,
        Unit.CONTROL,
        (),
        "Waits for the counts in the header, then stops and raises `done`.",
        "",
    ),
    Kind(
        "LOAD_PARAMS",
        1,
        Unit.LOAD,
        (address("source", "first entry of the step table"), Field("first", 10, "first entry"), Field("count", 10, "entries")),
        "Copies entries of 64 bytes of the step table into the parameter memory.",
        "for e in range(count): params[first + e] = dram[source + 64 e : +64]",
    ),
    Kind(
        "LOAD_INPUT",
        2,
        Unit.LOAD,
        (
            address("source", "first channel of a feature map [channel][row][column][lane]"),
            Field("channels", 12, "channels to load"),
            Field("channel_words", 20, "words from one channel to the next"),
            Field("row_words", 12, "words from one row to the next"),
            Field("buffer", 14, "first word in each PE's input buffer"),
            Field("slot_words", 14, "words from one channel to the next in the input buffer"),
            *_rectangles("in", "what it takes of each channel"),
        ),
        "Streams channels once and gives each PE of every group the words of its rectangle.",
        "for c in range(channels): for pe: for r, q in rectangle(pe):\n"
        "    input[every group, pe][buffer + c slot_words + (r - top) (right - left) + (q - left)]"
        " = dram[source + lanes (c channel_words + r row_words + q)]",
    ),
    Kind(
        "LOAD_ERROR",
        3,
        Unit.LOAD,
        (
            address("source", "error of the first channel of group 0 [channel][row][column][lane]"),
            Field("channels", 12, "channels for each group (the last group may have fewer, see `total_channels`)"),
            Field("total_channels", 16, "channels of all groups together"),
            Field("channel_words", 20, "words from one channel to the next"),
            Field("row_words", 12, "words from one row to the next"),
            Field("channel_split", 1, "1: PEs take different channels: PE p of group g those from (g P + p) channels on"),
            Field("lane_base", 12, "first word in the lane memories"),
            Field("slot_words", 12, "words from one channel to the next in the lane memories"),
            *_rectangles("out", "what it takes of each channel"),
        ),
        "Fills lane memories with errors for WG: group g takes its own channels, each PE its rectangle, sign-extended.",
        "for g: for j in range(channels) if g channels + j < total_channels: for pe: for r, q in rectangle(pe):\n"
        "    lane[g, pe][lane_base + j slot_words + (r - top) (right - left) + (q - left)]"
        " = dram[source + lanes ((g channels + j) channel_words + r row_words + q)]",
    ),
    Kind(
        "LOAD_KERNELS",
        4,
        Unit.LOAD,
        (
            Field("group", 6, "group whose kernel queues take the entries"),
            Field("pe", 3, "one PE of the group, or 7 for all"),
            address("index", "coordinates of the first entry: row then column inside its CSB block, 2 bytes an entry"),
            address("data", "8-bit weights of the first entry, `taps` bytes an entry"),
            Field("count", 14, "entries"),
            Field("taps", 8, "weights of a kernel"),
            Field("with_data", 1, "1: weights too (FF, NG); 0: coordinates only (WG)"),
            Field("transposed", 1, "1: swap row and column (NG)"),
            Field("out_base", 13, "added to the output coordinate", signed=True),
            Field("in_base", 13, "added to the input coordinate", signed=True),
            Field("last", 1, "1: an end mark follows; the COMPUTE that takes these entries stops there"),
        ),
        "Appends kernels of one CSB block to the kernel queues. The switch in front swaps the coordinates for NG. An entry"
        " takes one queue word for every 9 weights (one without weights), and so does the end mark.",
        "for k in range(count): queue.push(out_base + out(k), in_base + in(k), weights(k))\nif last: queue.push(end)",
    ),
    Kind(
        "COMPUTE",
        5,
        Unit.COMPUTE,
        (
            Field("mode", 2, "0 FF, 1 NG, 2 WG"),
            Field("clear", 1, "1: the half of lane memory (FF, NG) or gradient memory (WG) that holds the base starts from 0"),
            Field("buffer", 14, "first word of the inputs"),
            Field("slot_words", 14, "words from one channel to the next in the input buffer"),
            Field("lane_base", 12, "first accumulator (FF, NG) or error (WG)"),
            Field("lane_slot_words", 12, "words from one output channel to the next in the lane memories"),
            Field("gradient_base", 14, "gradients of kernel 0 (WG)"),
            Field("number_on", 1, "WG: 1: kernels are numbered on from the COMPUTE before, PE by PE; 0: from 0"),
            *_GEOMETRY,
            Field("in_rows", 10, "rows of the whole input feature map"),
            Field("in_columns", 10, "columns of the whole input feature map"),
            *_rectangles("in", "what its input buffer holds"),
            *_rectangles("out", "the output pixels it computes (WG: the error pixels it takes)"),
            Field("count_padding", 1, "1: a tap in the zero padding takes its cycle, as on the talk's machine"),
            Field("statistics", 8, "range register whose overflow flag a wrapping sum sets"),
        ),
        "Takes kernels from the queue up to the end mark. One kernel, one pixel, one tap a cycle; all lanes at once.",
        "FF, NG: for o, i, w in queue: for r, q in out(pe): for u, v in taps if in(o, i, r, q, u, v) is inside:\n"
        "    acc[o, r, q] += w[u, v] * input[i, position(r, q, u, v)]\n"
        "WG: for k, (o, i) in queue: for u, v in taps: for r, q in out(pe) if the input pixel is inside:\n"
        "    gradient[k, u, v] += sum over lanes of error[o, r, q] * input[i, position(r, q, u, v)]\n"
        "inside: FF and WG: (r stride + u dilation - pad, q ...); NG: ((r + pad - u dilation) / stride, ...) if that is whole",
    ),
    Kind(
        "POST",
        6,
        Unit.POST,
        (
            Field("mode", 2, "0 FF, 1 NG"),
            Field("lane_base", 12, "first accumulator"),
            Field("lane_slot_words", 12, "words from one channel to the next in the lane memories"),
            Field("channels", 12, "channels of each group"),
            Field("total_channels", 16, "channels of all groups together"),
            Field("channel_split", 1, "1: the PEs of a group hold different channels"),
            Field("with_bias", 1, "FF: add `bias`. NG: add to `bias_gradient`"),
            address("bias", "FF: stored bias of the first channel, int32 each"),
            address("element", "NG: first random element of the first channel, uint32 each"),
            address("target", "first output channel [channel][row][column][lane], 2 bytes a code if out_bits is above 8"),
            Field("channel_words", 20, "words from one output channel to the next"),
            Field("row_words", 12, "words from one output row to the next"),
            address("mask", "NG: activations of the same place; where they are not above 0 the error is 0"),
            Field("with_argmax", 1, "FF: write `argmax`"),
            address("argmax", "pool: where FF writes, and NG reads, which of the window's elements was the maximum"),
            Field("mask_channel_words", 20, "NG: words from one channel to the next in `mask` and `argmax`"),
            Field("mask_row_words", 12, "NG: words from one row to the next in `mask` and `argmax`"),
            address("bias_gradient", "NG: int32 of each channel, to which the sum of the 8-bit errors is added"),
            Field("param", 10, "entry of the step table"),
            Field("rectify", 2, "FF: 1: negative accumulators become 0; 2: negative codes do. NG: 1: apply `mask`"),
            Field("pool_rows", 3, "rows of the pooling window that follows (FF) or precedes (NG); 1: none"),
            Field("pool_columns", 3, "columns of that window"),
            Field("out_bits", 6, "width of the output codes, 2 to 16"),
            Field("images", 8, "lanes that hold an image; the others store 0 and are not measured"),
            Field("random_row", 16, "NG: random elements from one row to the next, in pixels"),
            Field("random_batch", 16, "NG: images of the whole batch (random elements from one pixel to the next)"),
            Field("random_image", 16, "NG: first image of this micro-batch"),
            Field("statistics", 8, "range register to update"),
            *_rectangles("out", "the accumulators' pixels"),
        ),
        "Drains accumulators: bias, rectify, range, requantise, pool forward or backward, and store.",
        "for pp: for g of pp: for j in range(channels): for window: for pe, pixel:\n"
        "    FF: y = saturate((max(acc + bias, 0) + half) >> shift); store max over window, and which\n"
        "    NG: e = saturate(((x > 0 ? acc : 0) + random) >> shift); store e at the maximum, 0 elsewhere\n"
        "A window may span PEs. Pixels that fill no window are measured and not stored.",
    ),
    Kind(
        "LOSS",
        7,
        Unit.POST,
        (
            address("logits", "codes [class][lane], 2 bytes a code if logit_bits is above 8"),
            Field("logit_bits", 6, "width of the logits"),
            address("labels", "uint16 [lane]"),
            address("target", "8-bit errors [class][lane]"),
            Field("with_bias", 1, "add to `bias_gradient`"),
            address("bias_gradient", "int32 of each class, to which the sum of the errors is added"),
            address("element", "first random element of each class, uint32"),
            Field("classes", 12, "number of classes"),
            Field("param", 10, "entry of the step table"),
            Field("images", 8, "lanes that hold an image; the others get no error"),
            Field("random_batch", 16, "images of the whole batch"),
            Field("random_image", 16, "first image of this micro-batch"),
            Field("statistics", 8, "range register to update"),
        ),
        "The gradient of softmax cross-entropy by table, requantised.",
        "for lane: d = max(z) - z; p = table(d) / sum; e = saturate((p - onehot + random) >> shift)",
    ),
    Kind(
        "UPDATE",
        8,
        Unit.UPDATE,
        (
            Field("group", 6, "group whose gradients are taken, and whose queue this instruction joins"),
            Field("pe", 3, "one PE of the group, or 7 for the sum over its PEs"),
            Field("from_memory", 1, "1: gradients are int32 at `gradient_source` (biases)"),
            address("gradient_source", "gradients in memory"),
            Field("gradient_base", 14, "first gradient in the gradient memories"),
            Field("count", 20, "parameters"),
            address("stored", "stored weights, stored_bytes each"),
            address("momentum", "momenta, momentum_bytes each"),
            address("operand", "8-bit weights for the next step (not for biases)"),
            address("element", "random element of each kernel, uint32; taps follow one another"),
            Field("taps", 8, "parameters of one random element"),
            Field("stored_bytes", 3, "2, 3 or 4"),
            Field("momentum_bytes", 3, "2, 3 or 4"),
            Field("operands", 1, "1: write 8-bit operands"),
            Field("param", 10, "entry of the step table"),
            Field("statistics", 8, "range register to update"),
        ),
        "Momentum SGD with weight decay on stored weights; emits the next step's 8-bit weights; clears gradients in memory.",
        "for k in range(count): u = saturate(round(m u + rate g + decay w)); w = saturate(w - u); operand = top(w)",
    ),
    Kind(
        "STATISTICS",
        9,
        Unit.POST,
        (
            address("target", "16 bytes a register: OR of magnitudes, saturated elements, overflow flag, 0"),
            Field("count", 9, "registers"),
        ),
        "Writes the range registers to memory and clears them.",
        "for s in range(count): dram[target + 16 s : +16] = statistics[s]; statistics[s] = 0",
    ),
)

#: The kinds of all machines, and behind them those of machines with an elementwise unit.
ALL_KINDS: tuple[Kind, ...] = (*KINDS, *ELEMENTWISE_KINDS)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in ALL_KINDS}
BY_OPCODE: dict[int, Kind] = {kind.opcode: kind for kind in ALL_KINDS}


def kinds_of(machine: Machine) -> tuple[Kind, ...]:
    """The kinds of instructions that a machine decodes; every other opcode is illegal there."""
    return ALL_KINDS if machine.elementwise_lanes else KINDS


#: Fields of a 64-byte entry of the step table. The host writes the table before each step; no instruction depends on the step.
STEP_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("shift", 0, 1, False, "right shift from accumulators to codes, 0 to 31 (POST, LOSS)"),
    Parameter("bias_shift", 1, 1, True, "left shift of a bias to the accumulators' scale, -31 to 31 (POST, FF)"),
    Parameter("stochastic", 2, 1, False, "1: stochastic rounding (POST in NG, LOSS, UPDATE)"),
    Parameter("frac", 3, 1, True, "fractional bits of the logits (LOSS)"),
    Parameter("key_low", 4, 4, False, "stream key"),
    Parameter("key_high", 8, 4, False, "stream key"),
    Parameter("momentum", 12, 1, False, "momentum coefficient, 8 fractional bits (UPDATE)"),
    Parameter("rate", 13, 1, False, "mantissa of rate / batch (UPDATE)"),
    Parameter("decay", 14, 1, False, "mantissa of rate * weight decay (UPDATE)"),
    Parameter("gradient_left", 15, 1, True, "left shift of rate * gradient to the momentum's scale + 8 (UPDATE)"),
    Parameter("decay_left", 16, 1, True, "left shift of decay * weight to the momentum's scale + 8 (UPDATE)"),
    Parameter("step_left", 17, 1, True, "left shift of a momentum to the stored scale (UPDATE)"),
    Parameter("operand_shift", 18, 1, False, "right shift from a stored weight to its operand (UPDATE)"),
    Parameter("stored_bits", 19, 1, False, "width at which stored weights saturate (UPDATE)"),
    Parameter("momentum_bits", 20, 1, False, "width at which momenta saturate (UPDATE)"),
)
STEP_ENTRY_BYTES = 64
#: With those that only the elementwise unit reads.
ALL_STEP_PARAMETERS: tuple[Parameter, ...] = (*STEP_PARAMETERS, *ELEMENTWISE_STEP_PARAMETERS)


def step_parameters_of(machine: Machine) -> tuple[Parameter, ...]:
    """The fields of a step-table entry that a machine reads."""
    return ALL_STEP_PARAMETERS if machine.elementwise_lanes else STEP_PARAMETERS
