"""The tiles of a random program: FF and NG with their POST, WG with its UPDATE, the loss, and updates of biases."""

import numpy as np

from fixgrad.machine.generate_elementwise import ElementwiseBuilder
from fixgrad.machine.generate_memory import narrow
from fixgrad.machine.generate_state import ALL_PES, REGISTERS, Chunk, Sums, Waits
from fixgrad.machine.generate_tiles import FF, NG, WG, Tile, random_tile, rectangle_fields


class ProgramBuilder(ElementwiseBuilder):
    """Appends random tiles to a program."""

    def add_tile(self) -> None:
        """One tile: FF, NG, WG with its update, the loss, an update of biases, or what the elementwise unit does."""
        kinds = ("FF", "FF", "NG", "NG", "WG", "WG", "LOSS", "BIASES")
        others = {"MAP": self._elementwise_tile, "NORM": self._normalisation, "SUMS": self._sums_alone}
        kind = self._random.choice((*kinds, "MAP", "MAP", "MAP", "NORM", "NORM", "SUMS") if self._machine.elementwise_lanes else kinds)
        if kind in others:
            others[kind]()
        elif kind == "LOSS":
            self._loss()
        elif kind == "BIASES" and self._sums:
            self._update_biases(self._sums.pop(self._random.randrange(len(self._sums))))
        elif kind == "WG":
            self._weight_tile(random_tile(self._machine, self._random, WG))
        else:
            self._map_tile(random_tile(self._machine, self._random, NG if kind == "NG" else FF))

    def _map_tile(self, tile: Tile) -> None:
        half = self._number(2)
        base = half * self._machine.half_lane_words
        free = self._halves[half]
        source = self._map("input" if tile.mode == FF else "error", tile.inputs, tile.held_size)
        compute = 0
        for number, chunk in enumerate(self._chunks(tile)):
            waits = free if number == 0 else Waits()
            compute = self._compute(tile, chunk, source, waits, clear=int(number == 0), lane_base=base)
        fields, also = (self._forward_fields if tile.mode == FF else self._backward_fields)(tile)
        post = self._emit(
            "POST",
            self._params.join(Waits(compute=compute), also),
            mode=tile.mode,
            lane_base=base,
            lane_slot_words=tile.slot,
            channels=tile.channels,
            total_channels=tile.total,
            channel_split=int(tile.channel_split),
            pool_rows=tile.pool[0],
            pool_columns=tile.pool[1],
            param=self._param(),
            statistics=self._number(REGISTERS),
            images=self._random.randint(1, self._machine.lanes),
            **rectangle_fields("out", tile.computed),
            **fields,
        )
        self._halves[half] = Waits(compute=compute, post=post)

    def _forward_fields(self, tile: Tile) -> tuple[dict[str, int], Waits]:
        """What FF tells POST: where the pooled codes go, biases, and the place for the maxima."""
        size = (tile.computed_size[0] // tile.pool[0], tile.computed_size[1] // tile.pool[1])
        words, bits = tile.total * size[0] * size[1], self._random.choice((8, 8, 8, self._random.randint(2, 16)))
        fields = {
            "target": self._new_map("activation", tile.total, size, bits),
            "channel_words": size[0] * size[1],
            "row_words": size[1],
            "out_bits": bits,
            "rectify": self._number(3),
            "with_bias": self._number(2),
            "with_argmax": self._number(2) if tile.pool != (1, 1) else 0,
        }
        if fields["with_bias"]:
            fields["bias"] = self._memory.store("bias", self._memory.codes((tile.total,), 24))
        if fields["with_argmax"]:
            fields["argmax"] = self._memory.allocate("argmax", words * self._machine.lanes)
        return fields, Waits()

    def _backward_fields(self, tile: Tile) -> tuple[dict[str, int], Waits]:
        """What NG tells POST: mask, places of maxima, random elements, and the sums for the biases."""
        size, pool = tile.computed_size, tile.pool
        target = (size[0] * pool[0] + self._number(pool[0]), size[1] * pool[1] + self._number(pool[1]))
        mask = self._map("mask", tile.total, size) if self._number(2) else None
        fields = {
            "target": self._new_map("error", tile.total, target, 8),
            "channel_words": target[0] * target[1],
            "row_words": target[1],
            "out_bits": 8,
            "element": self._elements("random", tile.total),
            "rectify": int(mask is not None),
            "with_bias": self._number(2),
            "mask_channel_words": size[0] * size[1],
            "mask_row_words": size[1],
            "random_row": size[1],
            "random_batch": self._random.randint(self._machine.lanes, 4 * self._machine.lanes),
            "random_image": self._number(3) * self._machine.lanes,
        }
        if mask is not None:
            fields["mask"] = mask.address
        if pool != (1, 1):
            shape = (tile.total, *size, self._machine.lanes)
            places = self._memory.integers(0, pool[0] * pool[1] - 1, shape, "u1")
            fields["argmax"] = self._memory.store("argmax", places)
        if fields["with_bias"]:
            fields["bias_gradient"] = self._new_sums(tile.total)
        return fields, Waits(post=0 if mask is None else mask.post)

    def _loss(self) -> None:
        machine, classes = self._machine, self._random.randint(1, 6)
        bits = self._random.choice((8, 16))
        codes = self._memory.codes((classes, machine.lanes), bits).astype("<i2" if bits > 8 else np.int8)
        fields = {
            "logits": self._memory.store("logits", codes),
            "logit_bits": bits,
            "labels": self._memory.store("labels", self._memory.integers(0, classes - 1, (machine.lanes,), "<u2")),
            "target": self._new_map("error", classes, (1, 1), 8),
            "with_bias": self._number(2),
            "element": self._elements("random", classes),
            "classes": classes,
            "param": self._param(),
            "images": self._random.randint(1, machine.lanes),
            "random_batch": self._random.randint(machine.lanes, 4 * machine.lanes),
            "random_image": self._number(3) * machine.lanes,
            "statistics": self._number(REGISTERS),
        }
        if fields["with_bias"]:
            fields["bias_gradient"] = self._new_sums(classes)
        self._emit("LOSS", self._params, **fields)

    # WG and updates

    def _weight_tile(self, tile: Tile) -> None:
        """Gradients of the tile's kernels over one or two sets of images, then their update."""
        half = self._number(2)
        base = half * self._machine.half_gradient_words
        chunks, compute = self._chunks(tile), 0
        for part in range(self._random.randint(1, 2)):
            lane_half = self._number(2)
            lane_base = lane_half * self._machine.half_lane_words
            self._load_error(tile, lane_base, self._halves[lane_half])
            source = self._map("input", tile.inputs, tile.held_size)
            for number, chunk in enumerate(chunks):
                first = part == 0 and number == 0
                fields = {"clear": int(first), "number_on": int(number > 0), "gradient_base": base, "lane_base": lane_base}
                compute = self._compute(tile, chunk, source, self._gradients[half] if first else Waits(), **fields)
            self._halves[lane_half] = Waits(compute=compute)
        self._gradients[half] = Waits(update=self._update_kernels(tile, chunks, base, Waits(compute=compute)))

    def _load_error(self, tile: Tile, lane_base: int, free: Waits) -> None:
        error = self._map("error", tile.total, tile.computed_size)
        pixels = error.rows * error.columns
        self._emit(
            "LOAD_ERROR",
            free.join(Waits(post=error.post)),
            source=error.address,
            channels=tile.channels,
            total_channels=tile.total,
            channel_words=pixels,
            row_words=error.columns,
            channel_split=int(tile.channel_split),
            lane_base=lane_base,
            slot_words=tile.slot,
            **rectangle_fields("out", tile.computed),
        )

    def _update_kernels(self, tile: Tile, chunks: list[Chunk], base: int, waits: Waits) -> int:
        """UPDATEs of all queues' kernels, as many in every group; the number of the last."""
        pes = self._machine.pes_per_group if tile.channel_split else 1
        number = 0
        for pe in range(pes):
            for group in range(self._machine.groups):
                kernels = sum(len(chunk.kernels[group * pes + pe]) for chunk in chunks)
                fields = self._parameter_fields(kernels, tile.taps, wide=False)
                number = self._emit(
                    "UPDATE",
                    waits.join(self._params),
                    group=group,
                    pe=pe if tile.channel_split else ALL_PES,
                    gradient_base=base,
                    operand=self._memory.allocate("new_operand", kernels * tile.taps),
                    operands=1,
                    **fields,
                )
        return number

    def _update_biases(self, sums: Sums) -> None:
        """Each group takes its share; the last ones may have none."""
        groups = self._machine.groups
        share = -(-sums.channels // groups)
        for group in range(groups):
            first = min(group * share, sums.channels)
            count = min(share, sums.channels - first)
            self._emit(
                "UPDATE",
                self._params.join(Waits(post=sums.post)),
                group=group,
                pe=ALL_PES,
                from_memory=1,
                gradient_source=sums.address + 4 * first,
                **self._parameter_fields(count, 1, wide=True),
            )

    def _parameter_fields(self, kernels: int, taps: int, *, wide: bool) -> dict[str, int]:
        """Stored values and momenta of `kernels` times `taps` parameters, in 4 bytes each if `wide`."""
        param = self._param()
        entry, count = self._entries[param], kernels * taps
        stored, momentum = (4 if wide else -(-entry[name] // 8) for name in ("stored_bits", "momentum_bits"))
        codes = [self._memory.codes((count,), entry[name]) for name in ("stored_bits", "momentum_bits")]
        return {
            "count": count,
            "taps": taps,
            "stored": self._memory.store("stored", narrow(codes[0], stored)),
            "momentum": self._memory.store("momentum", narrow(codes[1], momentum)),
            "element": self._elements("element", kernels),
            "stored_bytes": stored,
            "momentum_bytes": momentum,
            "param": param,
            "statistics": self._number(REGISTERS),
        }
