"""Random instructions of the elementwise unit for random programs: maps of every kind, and whole normalisations."""

import numpy as np

from fixgrad.machine.elementwise_instructions import (
    ERRORS_OF_MAXIMA,
    MAXIMUM,
    NORMALISE_EVALUATION,
    NORMALISE_FF,
    NORMALISE_NG,
    RECORD,
    RECORD_BYTES,
    SUM,
)
from fixgrad.machine.generate_state import REGISTERS, Map, ProgramState, Sums
from fixgrad.machine.instructions import Unit

#: Largest size of a map, window, and number of channels.
_SIZE, _KERNEL, _CHANNELS = 7, 4, 5
#: Bits of the fields of a record that the host may write: what CHANNEL_SUMS and NORMALISE leave there fits them.
_RECORD_BITS = {"a": 32, "b": 38, "c": 55, "running_mean": 50, "running_variance": 50}


class ElementwiseBuilder(ProgramState):
    """Appends ELEMENTWISE, CHANNEL_SUMS and NORMALISE to a program."""

    def _elementwise_tile(self) -> None:
        """A map from one or two, or from none."""
        size = self._random.randint(1, _SIZE), self._random.randint(1, _SIZE)
        channels, operands = self._random.randint(1, _CHANNELS), self._random.choice((0, 1, 1, 2, 2))
        windowed = operands > 0 and self._number(2) == 1
        first_size = (self._random.randint(1, _SIZE), self._random.randint(1, _SIZE)) if windowed else size
        fields = {"operands": operands, **(self._window() if windowed else _plain())}
        self._make_map(channels, size, first_size, fields)

    def _make_map(self, channels: int, size: tuple[int, int], first_size: tuple[int, int], fields: dict[str, int]) -> None:
        """ELEMENTWISE for a result of that size."""
        lanes, random = self._machine.lanes, self._random
        pixels, bits = size[0] * size[1], random.choice((8, 8, 8, random.randint(2, 16)))
        if fields["operands"]:
            fields |= self._operand("first", channels, first_size, fields)
            fields |= {"first_rows": first_size[0], "first_columns": first_size[1]}
        if fields["operands"] == 2:
            fields |= self._operand("second", channels, size, fields)
        if self._number(3) == 0:
            mask = self._map("mask", channels, size)
            fields |= {"masked": 1, "mask": mask.address, "mask_channel_words": pixels, "mask_row_words": size[1]}
        if fields.get("combine") == MAXIMUM and self._number(2):
            fields |= {"with_argmax": 1, "argmax": self._memory.allocate("argmax", channels * pixels * lanes)}
        if fields.get("combine") == ERRORS_OF_MAXIMA:
            taps = fields["kernel_rows"] * fields["kernel_columns"]
            places = self._memory.integers(0, taps - 1, (channels, *first_size, lanes), "u1")
            fields["argmax"] = self._memory.store("argmax", places)
        if "record" not in fields and self._number(4) == 0:
            fields |= {"per_channel": 1, "record": self._records(channels)}
        self._emit(
            "ELEMENTWISE",
            self._params,
            **{
                "factor": random.choice((1, random.randrange(1 << 24))),
                "rectify": self._number(2),
                "channels": channels,
                "rows": size[0],
                "columns": size[1],
                "channel_words": pixels,
                "row_words": size[1],
                "out_bits": bits,
                "images": random.randint(1, lanes),
                "param": self._param(),
                "measured": self._number(2),
                "statistics": self._number(REGISTERS),
                "element": self._elements("random", channels),
                "random_pixel": random.choice((0, random.randrange(1 << 20))),
                "random_row": size[1],
                "random_batch": random.randint(lanes, 4 * lanes),
                "random_image": self._number(3) * lanes,
                **fields,
                "target": self._new_map("map", channels, size, bits),
            },
        )

    def _window(self) -> dict[str, int]:
        """Any window, forward or backward."""
        random = self._random
        combine = random.choice((SUM, MAXIMUM, ERRORS_OF_MAXIMA))
        fields = {"combine": combine, "transposed": int(combine == ERRORS_OF_MAXIMA or (combine == SUM and self._number(2)))}
        for axis in ("rows", "columns"):
            kernel = random.randint(1, _KERNEL)
            fields |= {f"kernel_{axis}": kernel, f"stride_{axis}": random.randint(1, 3), f"pad_{axis}": random.randint(0, kernel)}
        return fields

    def _operand(self, name: str, channels: int, size: tuple[int, int], fields: dict[str, int]) -> dict[str, int]:
        """An operand of one or two bytes a code."""
        pixels, wide = size[0] * size[1], self._number(3) == 0
        strides = {f"{name}_channel_words": pixels, f"{name}_row_words": size[1], f"{name}_wide": int(wide)}
        if not wide:
            return {name: self._map(name, channels, size).address, **strides}
        codes = self._memory.codes((channels, *size, self._machine.lanes), 16).astype("<i2")
        return {name: self._memory.store(name, codes), **strides}

    def _records(self, channels: int, used: tuple[str, ...] = ("a", "b", "c")) -> int:
        """Records whose fields `used` hold random values."""
        records = np.zeros((channels, RECORD_BYTES // 8), "<i8")
        for item in RECORD:
            if item.name in used:
                limit = (1 << (_RECORD_BITS[item.name] - 1)) - 1
                low = 0 if item.name == "running_variance" else -limit
                records[:, item.offset // 8] = self._memory.integers(low, limit, (channels,), "<i8")
        return self._memory.store("records", records)

    def _normalisation(self) -> None:
        """Sums, scalars and map of FF, and of NG behind it; or of a forward pass alone."""
        lanes, random = self._machine.lanes, self._random
        channels, parts = random.randint(1, _CHANNELS), random.randint(1, 2)
        size = random.randint(1, _SIZE), random.randint(1, _SIZE)
        pixels, wide = size[0] * size[1], self._number(2)
        shape = (parts, channels, *size, lanes)
        codes = self._memory.codes(shape, random.choice((2, 8, 16) if wide else (2, 8)))
        x = self._memory.store("x", codes.astype(("i1", "<i2")[wide]))
        record = self._records(channels, ("running_mean", "running_variance"))
        gamma, beta = (self._memory.store(name, self._memory.codes((channels,), 24)) for name in ("gamma", "beta"))
        run = {"micro_batches": parts, "batch_words": channels * pixels, "channels": channels}
        run |= {"channel_words": pixels, "pixels": pixels}
        known = {"record": record, "gamma": gamma, "channels": channels, "count": parts * pixels * lanes}
        of_x = {"second": x, "second_wide": wide}
        map_of_x = {"first": x, "first_wide": wide, "first_channel_words": pixels, "first_row_words": size[1]}
        evaluates = self._number(4) == 0
        if not evaluates:
            self._emit("CHANNEL_SUMS", self._params, first=x, first_wide=wide, products=1, target=record, **of_x, **run)
        mode = NORMALISE_EVALUATION if evaluates else NORMALISE_FF
        average = random.randint(0, 1 << 12)
        self._emit("NORMALISE", self._params, mode=mode, beta=beta, average=average, param=self._param(), **known)
        self._normalised_map(channels, size, record, {"operands": 1, **map_of_x})
        if evaluates:
            return
        error = self._memory.store("error", self._memory.codes(shape, 8).astype(np.int8))
        self._emit("CHANNEL_SUMS", self._params, first=error, products=1, target=record, **of_x, **run)
        gradients = {name: self._memory.allocate(name, 4 * channels) for name in ("gamma_gradient", "beta_gradient")}
        for address in gradients.values():
            self._sums.append(Sums(address, channels, self._issued[Unit.POST] + 1))
        self._emit("NORMALISE", self._params, mode=NORMALISE_NG, param=self._param(), **gradients, **known)
        of_error = {"first": error, "first_channel_words": pixels, "first_row_words": size[1]}
        beside = {**of_x, "second_channel_words": pixels, "second_row_words": size[1]}
        self._normalised_map(channels, size, record, {"operands": 2, **of_error, **beside})

    def _normalised_map(self, channels: int, size: tuple[int, int], record: int, operands: dict[str, int]) -> None:
        """The map of a normalisation for its first micro-batch."""
        lanes, pixels = self._machine.lanes, size[0] * size[1]
        self._emit(
            "ELEMENTWISE",
            self._params,
            **_plain(),
            **operands,
            first_rows=size[0],
            first_columns=size[1],
            per_channel=1,
            record=record,
            rectify=self._number(2),
            channels=channels,
            rows=size[0],
            columns=size[1],
            channel_words=pixels,
            row_words=size[1],
            out_bits=8,
            images=self._random.randint(1, lanes),
            param=self._param(),
            measured=1,
            statistics=self._number(REGISTERS),
            element=self._elements("random", channels),
            random_row=size[1],
            random_batch=4 * lanes,
            target=self._new_map("normalised", channels, size, 8),
        )

    def _sums_alone(self) -> None:
        """The gradient of a bias from a map that may have just been written."""
        size = self._random.randint(1, _SIZE), self._random.randint(1, _SIZE)
        source: Map = self._map("error", self._random.randint(1, _CHANNELS), size)
        target = self._memory.allocate("bias_gradient", 4 * source.channels)
        self._sums.append(Sums(target, source.channels, self._issued[Unit.POST] + 1))
        pixels = size[0] * size[1]
        self._emit(
            "CHANNEL_SUMS",
            self._params,
            first=source.address,
            target=target,
            micro_batches=1,
            batch_words=source.channels * pixels,
            channels=source.channels,
            channel_words=pixels,
            pixels=pixels,
        )


def _plain() -> dict[str, int]:
    return {"kernel_rows": 1, "kernel_columns": 1, "stride_rows": 1, "stride_columns": 1}
