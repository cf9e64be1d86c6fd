"""A network as the machine runs it: stages (layers with weights) and nodes (layers of the elementwise unit), and the way of errors.

A map in memory holds one or more tensors of the same bytes. A chain of rectifier, pool and flattening behind a layer with weights
belongs to its stage, as far as POST does it on the way. Errors go back as in `fixgrad.network.reference`: where a layer passes
error codes on as they are, the error of its input *is* that of its output, in the same memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fixgrad.compiler.stages import FeatureMap, Stage
from fixgrad.network import Concat, Layer, Network, PadChannels

#: Layers whose results have their channels in other places than what they read.
MOVING = (PadChannels, Concat)


@dataclass(frozen=True, slots=True)
class Node:
    """A layer of the elementwise unit.

    Attributes:
        index: its number, behind those of the stages.
        layer: the layer.
        sources: the maps that it reads.
        target: the map that it makes.
    """

    index: int
    layer: Layer
    sources: tuple[FeatureMap, ...]
    target: FeatureMap

    @property
    def name(self) -> str:
        return self.layer.name


@dataclass(frozen=True, slots=True)
class SentError:
    """What a node sends to one of its inputs.

    Attributes:
        node, position: who sends, and to which of its inputs.
        name: of the error in the step table.
        error: of the node's output; `made` is its name in the step table, where it was made.
        target: the map that is written.
        mask: the activation where the error is 0 if that is not above 0; None for no mask.
    """

    node: Node
    position: int
    name: str
    error: FeatureMap
    made: str
    target: FeatureMap
    mask: FeatureMap | None

    @property
    def is_new(self) -> bool:
        """Whether it is made from accumulators, with a scale of its own; else codes are passed on."""
        return self.node.layer.rescales_error


@dataclass(frozen=True, slots=True)
class ErrorSum:
    """The error of a tensor with two readers, from what they send.

    Attributes:
        tensor: whose error it is.
        parts: what they send; `names` are those of the parts in the step table (of what is passed on, where it was made).
        target: the map that is written.
        mask: see `SentError`.
    """

    tensor: str
    parts: tuple[FeatureMap, FeatureMap]
    names: tuple[str, str]
    target: FeatureMap
    mask: FeatureMap | None


@dataclass(frozen=True, slots=True)
class Backward:
    """What happens for one layer on the way back: first the sum of what its readers sent, then what it sends itself.

    Attributes:
        step: the stage or node.
        error: of its output.
        sums: of the errors of its tensors.
        sent: what a node sends. A stage sends by its sink.
        bias_error: of a stage: its bias gradient is the sum of this map's channels, where POST does not add it up.
    """

    step: Stage | Node
    error: FeatureMap
    sums: tuple[ErrorSum, ...] = ()
    sent: tuple[SentError, ...] = ()
    bias_error: FeatureMap | None = None


@dataclass(frozen=True)
class Graph:
    """Everything that follows from the network alone.

    Attributes:
        network: the network.
        host: layers that the host computes when it writes the input.
        source: the map of the input.
        stages, nodes: in the order of the layers.
        steps: both, in that order.
        backward: in the order in which errors go back.
        order_of: error map -> activation map with the same order of channels.
        error_of: tensor -> the map of its error: before the pool, where POST pools.
        error_made: tensor -> name of its error in the step table, where its codes were made.
        made_by: tensor -> name of the stage or node whose map holds it or, behind a stage, would.
    """

    network: Network
    host: tuple[Layer, ...]
    source: FeatureMap
    steps: tuple[Stage | Node, ...]
    backward: tuple[Backward, ...]
    order_of: Mapping[str, str]
    error_of: Mapping[str, FeatureMap]
    error_made: Mapping[str, str]
    made_by: Mapping[str, str]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(step for step in self.steps if isinstance(step, Stage))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(step for step in self.steps if isinstance(step, Node))

    def step_of(self, name: str) -> Stage | Node:
        """The stage or node of a layer."""
        return next(step for step in self.steps if step.name == name)

    def step_of_tensor(self, tensor: str) -> Stage | Node:
        """The stage or node that makes a tensor."""
        return self.step_of(self.made_by[tensor])

    @cached_property
    def maps(self) -> tuple[FeatureMap, ...]:
        """All activation maps, the input's first."""
        return (self.source, *(step.target for step in self.steps))

    @cached_property
    def errors(self) -> tuple[FeatureMap, ...]:
        """All error maps, each once, in the order in which they are written."""
        logits = self.stages[-1].error
        found = {logits.name: logits}
        for back in self.backward:
            written = [item.target for item in back.sums] + [item.target for item in back.sent]
            if isinstance(back.step, Stage) and back.step.sink is not None:
                written.append(back.step.sink.map)
            for item in written:
                found.setdefault(item.name, item)
        return tuple(found.values())

    def channel_classes(self) -> dict[str, str]:
        """Activation map -> the first map whose order of channels it must share: nodes keep the places of channels."""
        first: dict[str, str] = {item.name: item.name for item in self.maps}

        def root(name: str) -> str:
            return name if first[name] == name else root(first[name])

        place = {name: number for number, name in enumerate(first)}
        for node in self.nodes:
            for source in () if isinstance(node.layer, MOVING) else node.sources:
                low, high = sorted((root(source.name), root(node.target.name)), key=place.__getitem__)
                first[high] = low
        return {name: root(name) for name in first}
