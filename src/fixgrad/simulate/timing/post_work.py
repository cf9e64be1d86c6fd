"""What POST, LOSS and STATISTICS read, do and write."""

from collections.abc import Iterator
from dataclasses import dataclass

from fixgrad.machine import Machine
from fixgrad.simulate.timing.assumptions import Assumptions
from fixgrad.simulate.timing.elementwise_work import ALONE, ElementwiseWork
from fixgrad.simulate.timing.regions import Box, Fields, bounding_box, boxes, region
from fixgrad.simulate.timing.steps import Drain, Step
from fixgrad.simulate.timing.traffic import RegionRequest, Request

WORD_BYTES, LABEL_BYTES, REGISTER_BYTES = 4, 2, 16
FF = 0
Asked = Request | RegionRequest


@dataclass(frozen=True, slots=True)
class PostWork:
    """The post-processors of a machine."""

    machine: Machine
    assumptions: Assumptions

    def steps(self, name: str, fields: Fields, at: int) -> Iterator[Step]:
        """The steps of instruction number `at` of the kind `name`."""
        if name in ALONE:
            return ElementwiseWork(self.machine, self.assumptions).steps(name, fields, at)
        if name == "POST":
            return self._drain(fields, at)
        return self._loss(fields, at) if name == "LOSS" else self._statistics(fields, at)

    def _drain(self, fields: Fields, at: int) -> Iterator[Step]:
        """Post-processor p serves groups p n to (p + 1) n, one after the other; a step is a group of each, or several."""
        machine, limit = self.machine, self.assumptions.step_bytes
        rectangles = boxes(fields, at, "out")
        box, split = bounding_box(rectangles), fields["channel_split"][at]
        per_pe, total = fields["channels"][at], fields["total_channels"][at]
        per_group = per_pe * (machine.pes_per_group if split else 1)
        pe_area = box.area if split else max(item.area for item in rectangles)
        served = machine.groups // machine.post_processors
        reads, channel_writes = _channel_requests(fields, at, total)
        writes, drains, cycles, size = list[Asked](), list[Drain](), 0, 0
        for turn in range(served):
            longest = 0
            for group in range(turn, machine.groups, served):
                first = group * per_group
                count = min(per_group, total - first)
                if count <= 0:
                    continue
                got, stored, words = self._group_traffic(fields, at, box, first, count)
                reads += got
                writes += stored
                drains.append(Drain(group, min(count, per_pe) * pe_area))
                longest = max(longest, count * box.area, words)
                size += sum(item.bytes for item in stored)
            cycles += longest
            last = turn == served - 1
            if last or size >= limit:
                writes += channel_writes if last else ()
                yield Step(tuple(reads), cycles, tuple(writes), tuple(drains))
                reads, writes, drains, cycles, size = [], [], [], 0, 0

    def _group_traffic(
        self, fields: Fields, at: int, box: Box, first: int, count: int
    ) -> tuple[list[Asked], list[Asked], int]:
        """Reads and writes for `count` channels of a group from `first` on, and the words of all lanes that are written."""
        lanes, limit = self.machine.lanes, self.assumptions.request_bytes * self.machine.memory.channels
        pool = fields["pool_rows"][at], fields["pool_columns"][at]
        pooled = pool != (1, 1)
        reads, writes = list[Asked](), list[Asked]()
        if fields["mode"][at] == FF:
            target, code = box.over(*pool), 2 if fields["out_bits"][at] > 8 else 1
            if fields["with_argmax"][at]:
                writes.append(RegionRequest(region(lanes, fields, at, "argmax", target, count, first), limit, write=True))
            words = target.area * count * (code + fields["with_argmax"][at])
        else:
            target, code = box.times(*pool), 1
            strides = ("mask_channel_words", "mask_row_words")
            for base, wanted in (("mask", fields["rectify"][at] & 1), ("argmax", pooled)):
                if wanted:
                    reads.append(RegionRequest(region(lanes, fields, at, base, box, count, first, strides), limit))
            words = target.area * count
        writes.append(RegionRequest(region(lanes * code, fields, at, "target", target, count, first), limit, write=True))
        return reads, writes, words

    def _loss(self, fields: Fields, at: int) -> Iterator[Step]:
        lanes, classes = self.machine.lanes, fields["classes"][at]
        code = 2 if fields["logit_bits"][at] > 8 else 1
        reads = [
            Request(fields["logits"][at], classes * lanes * code),
            Request(fields["labels"][at], lanes * LABEL_BYTES),
            Request(fields["element"][at], classes * WORD_BYTES),
        ]
        writes = [Request(fields["target"][at], classes * lanes, write=True)]
        if fields["with_bias"][at]:
            sums = Request(fields["bias_gradient"][at], classes * WORD_BYTES)
            reads.append(sums)
            writes.append(sums._replace(write=True))
        cycles = self.machine.latencies.loss_per_class * classes * fields["images"][at]
        yield Step(tuple(reads), cycles, tuple(writes))

    def _statistics(self, fields: Fields, at: int) -> Iterator[Step]:
        count = fields["count"][at]
        yield Step((), count, (Request(fields["target"][at], count * REGISTER_BYTES, write=True),))


def _channel_requests(fields: Fields, at: int, total: int) -> tuple[list[Asked], list[Asked]]:
    """What POST reads and writes once for each channel: biases, or random elements and sums of errors."""
    if fields["mode"][at] == FF:
        return ([Request(fields["bias"][at], WORD_BYTES * total)] if fields["with_bias"][at] else []), []
    reads, writes = list[Asked]([Request(fields["element"][at], WORD_BYTES * total)]), list[Asked]()
    if fields["with_bias"][at]:
        sums = Request(fields["bias_gradient"][at], WORD_BYTES * total)
        reads.append(sums)
        writes.append(sums._replace(write=True))
    return reads, writes
