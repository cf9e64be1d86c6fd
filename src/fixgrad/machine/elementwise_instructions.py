"""The instructions of the elementwise unit, which machines with `elementwise_lanes` above 0 have: layers without weights.

The unit belongs to POST: it takes its instructions from POST's queue, in order, and they count as POST instructions. One begins
when all POST instructions before it have completed, writes included. It streams feature maps from memory to memory.
"""

from fixgrad.machine.instruction_kinds import Field, Kind, Parameter, Unit, address

#: Bytes of the record that batch normalisation keeps of a channel.
RECORD_BYTES = 128

#: Values of the field `combine` of ELEMENTWISE.
SUM, MAXIMUM, ERRORS_OF_MAXIMA = 0, 1, 2
#: Values of the field `mode` of NORMALISE.
NORMALISE_FF, NORMALISE_NG, NORMALISE_EVALUATION = 0, 1, 2

_OPERANDS = (
    Field("operands", 2, "maps that are read: 0 none, 1 `first`, 2 `first` and `second`"),
    address("first", "first operand [channel][row][column][lane]"),
    Field("first_wide", 1, "1: 2 bytes a code"),
    Field("first_channel_words", 20, "words from one channel to the next"),
    Field("first_row_words", 12, "words from one row to the next"),
    Field("first_rows", 10, "rows of the first operand: taps outside meet nothing"),
    Field("first_columns", 10, "columns of the first operand"),
    address("second", "second operand, a code for each target pixel"),
    Field("second_wide", 1, "1: 2 bytes a code"),
    Field("second_channel_words", 20, "words from one channel to the next"),
    Field("second_row_words", 12, "words from one row to the next"),
)

_WINDOW = (
    Field("combine", 2, "what becomes of a window of `first`: 0 sum, 1 maximum, 2 sum of the errors whose maximum this pixel was"),
    Field("transposed", 1, "0: the window of a target pixel (forward); 1: the windows that hold it (backward)"),
    Field("kernel_rows", 10, "rows of a window; at most 4,096 taps, 255 with `argmax`"),
    Field("kernel_columns", 10, "columns of a window"),
    Field("stride_rows", 10, "rows from one window to the next"),
    Field("stride_columns", 10, "likewise"),
    Field("pad_rows", 10, "rows of padding, which meets nothing"),
    Field("pad_columns", 10, "likewise"),
    Field("with_argmax", 1, "maximum: write `argmax`"),
    address("argmax", "uint8: number of the maximum's tap, laid out as the target (maximum: written) or `first` (errors: read)"),
)

_ARITHMETIC = (
    Field("per_channel", 1, "1: a, b, c are those of the channel's record; 0: factor << left_first, 1 << left_second, 0"),
    address("record", "records of the channels"),
    Field("factor", 24, "of the first operand where all channels have the same"),
    Field("rectify", 1, "1: negative accumulators become 0"),
    Field("masked", 1, "1: apply `mask`"),
    address("mask", "8-bit activations: where they are not above 0 the accumulator becomes 0"),
    Field("mask_channel_words", 20, "words from one channel to the next"),
    Field("mask_row_words", 12, "words from one row to the next"),
)

_TARGET = (
    address("target", "result [channel][row][column][lane], 2 bytes a code if out_bits is above 8"),
    Field("channel_words", 20, "words from one channel to the next"),
    Field("row_words", 12, "words from one row to the next"),
    Field("channels", 16, "channels"),
    Field("rows", 10, "rows of the result"),
    Field("columns", 10, "columns of the result"),
    Field("out_bits", 6, "width of the codes, 2 to 16"),
    Field("images", 8, "lanes that hold an image; the others store 0 and are not measured"),
    Field("param", 10, "entry of the step table"),
    Field("measured", 1, "1: update a range register"),
    Field("statistics", 8, "which"),
    address("element", "first random element of the first channel, uint32 each; read if the entry's `stochastic` is 1"),
    Field("random_pixel", 20, "random elements before the first pixel, in pixels"),
    Field("random_row", 16, "random elements from one row to the next, in pixels"),
    Field("random_batch", 16, "images of the whole batch (random elements from one pixel to the next)"),
    Field("random_image", 16, "first image of this micro-batch"),
)

ELEMENTWISE_KINDS: tuple[Kind, ...] = (
    Kind(
        "ELEMENTWISE",
        16,
        Unit.POST,
        (*_OPERANDS, *_WINDOW, *_ARITHMETIC, *_TARGET),
        "A map from one or two maps: sums, both maps of batch normalisation, pooling of any window in both directions, picking"
        " pixels, zero channels, the sum of the errors of several readers.",
        "for c in range(channels): for r, q in rows x columns: for lane:\n"
        "    u = combine(first[c, place(r, i), place(q, j)] for i, j in kernel if both places are inside), 0 if none is\n"
        "    t = a[c] u + b[c] second[c, r, q] + c[c]\n"
        "    acc = saturate32((t + half) >> down); if rectify: acc = max(acc, 0); if masked and mask[c, r, q] <= 0: acc = 0\n"
        "    target[c, r, q] = saturate((acc + random) >> shift)\n"
        "place: r stride + i - pad; transposed: (r + pad - i) / stride, if that is whole\n"
        "combine: sum; maximum, the first of equals in raster order of i, j; of errors those whose argmax is this i, j",
    ),
    Kind(
        "CHANNEL_SUMS",
        17,
        Unit.POST,
        (
            address("first", "first map [micro-batch][channel][pixel][lane]"),
            Field("first_wide", 1, "1: 2 bytes a code"),
            address("second", "second map, which may be the first again"),
            Field("second_wide", 1, "1: 2 bytes a code"),
            Field("products", 1, "1: two int64 into the record of each channel; 0: int32, and `second` is not read"),
            address("target", "first record, or first int32"),
            Field("micro_batches", 16, "micro-batches"),
            Field("batch_words", 32, "words from one micro-batch to the next"),
            Field("channels", 16, "channels"),
            Field("channel_words", 20, "words from one channel to the next"),
            Field("pixels", 20, "consecutive words of a channel"),
        ),
        "The sums of a map, and of its products with another, over all pixels, lanes and micro-batches of each channel.",
        "for c in range(channels): for m in range(micro_batches): for p in range(pixels): for lane:\n"
        "    total += first[m, c, p]; product += first[m, c, p] second[m, c, p]",
    ),
    Kind(
        "NORMALISE",
        18,
        Unit.POST,
        (
            Field("mode", 2, "0 FF, 1 NG, 2 FF with the running statistics"),
            address("record", "records of the channels"),
            address("gamma", "stored gamma, int32 each"),
            address("beta", "FF: stored beta, int32 each"),
            address("gamma_gradient", "NG: int32 each, written"),
            address("beta_gradient", "NG: int32 each, written"),
            Field("channels", 16, "channels"),
            Field("count", 25, "elements of a channel in the whole batch, 1 to 2**24"),
            Field("average", 13, "FF: share of the batch in the running statistics, 12 fractional bits"),
            Field("param", 10, "entry of the step table"),
        ),
        "The scalars of batch normalisation, channel by channel: from the sums in its record to the coefficients of ELEMENTWISE"
        " ([steps 2 to 7](arithmetic.md#batch-normalisation)).",
        "for c in range(channels):\n"
        "    FF: mean, variance from total, product; running statistics; root, half; a, b = 0, c\n"
        "    NG: a, b, c from total, product, mean, root, half, spread; gradients of gamma and beta\n"
        "    FF with the running statistics: mean, variance are these; root, half; a, b = 0, c",
    ),
)

#: What the elementwise unit reads of an entry of the step table besides `shift`, `stochastic` and the key.
ELEMENTWISE_STEP_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("left_first", 21, 1, False, "left shift of the factor of the first operand, 0 to 30 (ELEMENTWISE)"),
    Parameter("left_second", 22, 1, False, "left shift that is the factor of the second operand, 0 to 30 (ELEMENTWISE)"),
    Parameter("down", 23, 1, False, "right shift from products to accumulators, 0 to 31 (ELEMENTWISE)"),
    Parameter("factor_left", 24, 1, True, "left shift of gamma times root, without `half` (NORMALISE)"),
    Parameter("offset_left", 25, 1, True, "left shift of beta (NORMALISE, FF)"),
    Parameter("mean_left", 26, 1, True, "left shift between mean and running mean, to the latter in mode 0 (NORMALISE, FF)"),
    Parameter("variance_left", 27, 1, True, "left shift between variance and running variance, likewise (NORMALISE, FF)"),
    Parameter("epsilon", 32, 6, False, "added to the variance, 1 to 2**40 (NORMALISE, FF)"),
)

#: The record of a channel, 128 bytes: signed integers of 8 bytes each.
RECORD: tuple[Parameter, ...] = tuple(
    Parameter(name, 8 * place, 8, True, text)
    for place, (name, text) in enumerate(
        (
            ("total", "sum of the first map of CHANNEL_SUMS, 39 bits"),
            ("product", "sum of the products, 54 bits"),
            ("a", "factor of the first operand, 32 bits"),
            ("b", "factor of the second operand, 38 bits"),
            ("c", "offset, 56 bits"),
            ("mean", "25 bits, 8 fractional bits"),
            ("root", "inverse root, 18 bits unsigned: root * 2**(half - 40)"),
            ("half", "6 bits unsigned"),
            ("spread", "variance + epsilon, 43 bits unsigned, 8 fractional bits"),
            ("running_mean", "50 bits, 24 fractional bits"),
            ("running_variance", "50 bits, 28 fractional bits"),
        )
    )
)
