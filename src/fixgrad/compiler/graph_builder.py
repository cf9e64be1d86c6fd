"""From a network to its graph: what a stage takes on behind its layer, which maps there are, and where errors go."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fixgrad.compiler.graph import Backward, ErrorSum, Graph, Node, SentError
from fixgrad.compiler.stages import MAX_POOL, ErrorSink, FeatureMap, Stage, make_stage, map_of, stored_tensors
from fixgrad.network import INPUT, Add, Flatten, Layer, MacLayer, MaxPool2d, Network, ReLU
from fixgrad.network.recipe import OPERAND_BITS


def host_layers(network: Network) -> tuple[Layer, ...]:
    """Layers that pass codes on, one behind the other from the input: the host computes them when it writes the input."""
    found: list[Layer] = []
    tensor = INPUT
    while len(network.readers[tensor]) == 1 and not (layer := network.readers[tensor][0].layer).rescales:
        found.append(layer)
        tensor = layer.name
    return tuple(found)


def node_layers(network: Network) -> tuple[Layer, ...]:
    """The layers that become nodes: neither the host nor a stage computes them."""
    taken = {layer.name for layer in host_layers(network)}
    for layer in network.mac_layers:
        taken.update(item.name for item in tail_of(network, layer))
    return tuple(layer for layer in network.layers if layer.name not in taken and not isinstance(layer, MacLayer | Flatten))


def build_graph(network: Network) -> Graph:
    """The graph of a network; that a machine can run it is for `fixgrad.compiler.support` to say."""
    return _Builder(network).build()


def tail_of(network: Network, layer: MacLayer) -> tuple[Layer, ...]:
    """What POST does behind a layer with weights: a rectifier, one pool whose error a layer with weights makes, flattening."""
    if layer.out_bits > OPERAND_BITS:
        return ()
    tail: list[Layer] = []
    for item in _single_readers(network, layer.name):
        if isinstance(item, MaxPool2d):
            pooled = any(isinstance(each, MaxPool2d) for each in tail)
            if pooled or max(item.window) > MAX_POOL or not _ends_at_weights(network, item.name):
                break
        elif not isinstance(item, ReLU | Flatten):
            break
        tail.append(item)
    return tuple(tail)


def _single_readers(network: Network, tensor: str) -> Iterator[Layer]:
    """The layer that alone reads a tensor, the one that alone reads its result, and so on, up to one with weights."""
    while len(network.readers[tensor]) == 1:
        layer = network.readers[tensor][0].layer
        if isinstance(layer, MacLayer):
            return
        yield layer
        tensor = layer.name


def _ends_at_weights(network: Network, tensor: str) -> bool:
    """Whether rectifiers and flattening alone stand between a tensor and the layer with weights that alone reads it."""
    for layer in _single_readers(network, tensor):
        if not isinstance(layer, ReLU | Flatten):
            return False
        tensor = layer.name
    return len(network.readers[tensor]) == 1


class _Builder:
    """Attributes:
    map_of: tensor -> the map that holds it.
    made_by: tensor -> the stage or node whose map holds it or, behind a stage, would.
    error_of: tensor -> the map of its error, and that error's name in the step table.
    sent: tensor -> the same of what its readers send to it, so far.
    by_post: stages whose bias gradient POST or LOSS adds up.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.map_of: dict[str, FeatureMap] = {}
        self.made_by: dict[str, Stage | Node] = {}
        self.error_of: dict[str, tuple[FeatureMap, str]] = {}
        self.sent: dict[str, list[tuple[FeatureMap, str]]] = {}
        self.by_post: set[str] = {network.logits}
        self.order_of: dict[str, str] = {}

    def build(self) -> Graph:
        network, host = self.network, host_layers(self.network)
        chain = [INPUT, *(layer.name for layer in host)]
        source = self._map(chain, chain[-1:], OPERAND_BITS)
        steps = list(self._steps(network.layers[len(host) :]))
        backward = list(self._backward(network.layers[len(host) :]))
        changed = {back.step.name: back.step for back in backward}
        return Graph(
            network,
            host,
            source,
            tuple(changed.get(step.name, step) for step in steps),
            tuple(backward),
            self.order_of,
            {tensor: item for tensor, (item, _) in self.error_of.items()},
            {tensor: made for tensor, (_, made) in self.error_of.items()},
            {tensor: step.name for tensor, step in self.made_by.items()},
        )

    # Forward

    def _steps(self, layers: Sequence[Layer]) -> Iterator[Stage | Node]:
        """Stages and nodes in order; the numbers of the nodes follow those of the stages."""
        number = {layer.name: index for index, layer in enumerate(self.network.mac_layers)}
        for layer in layers:
            if layer.name in self.made_by or layer.name in self.map_of:  # behind a stage, or flattened
                continue
            number.setdefault(layer.name, len(number))
            step = self._stage(layer, number[layer.name]) if isinstance(layer, MacLayer) else self._node(layer, number[layer.name])
            self.made_by.update(dict.fromkeys(step.target.tensors, step))
            self.order_of[step.name] = step.target.name
            yield step

    def _stage(self, layer: MacLayer, number: int) -> Stage:
        tail = tail_of(self.network, layer)
        chain = [layer.name, *(item.name for item in tail)]
        target = self._map(chain, stored_tensors(layer, tail), layer.out_bits)
        stage = make_stage(number, layer, tail, self.map_of[layer.inputs[0]], target)
        self.made_by.update(dict.fromkeys(chain, stage))
        return stage

    def _node(self, layer: Layer, number: int) -> Node:
        sources = tuple(self.map_of[tensor] for tensor in layer.inputs)
        target = self._map([layer.name], [layer.name], self.network.code_bits(layer.name))
        if isinstance(layer, Add | ReLU) and target.words == sources[0].words:  # of vectors that are maps in memory
            target = replace(target, channels=sources[0].channels, rows=sources[0].rows, columns=sources[0].columns)
            self.map_of.update(dict.fromkeys(target.tensors, target))
        return Node(number, layer, sources, target)

    def _map(self, chain: Sequence[str], stored: Sequence[str], bits: int) -> FeatureMap:
        """The map of some tensors at the end of a chain, and of all that flatten one of them."""
        tensors = list(stored)
        for layer in self.network.layers:
            if isinstance(layer, Flatten) and layer.inputs[0] in tensors and layer.name not in tensors:
                tensors.append(layer.name)
        found = map_of(self.network, [*chain, *(name for name in tensors if name not in chain)], tensors, bits)
        self.map_of.update(dict.fromkeys(tensors, found))
        return found

    # Backward

    def _backward(self, layers: Sequence[Layer]) -> Iterator[Backward]:
        logits = self.made_by[self.network.logits]
        assert isinstance(logits, Stage)
        self.error_of[self.network.logits] = logits.error, self.network.logits
        sums: tuple[ErrorSum, ...] = ()
        for layer in reversed(layers):
            sums += tuple(self._joined(layer.name))
            if layer.name not in self.error_of:  # no parameter in it or before it
                continue
            step = self.made_by[layer.name]
            if step.layer is not layer:
                # Flattening, or what POST does behind a stage: the error of its input is the same memory.
                self._pass_on(layer, layer.inputs[0])
                continue
            yield self._stage_back(step, sums) if isinstance(step, Stage) else self._node_back(step, sums)
            sums = ()

    def _joined(self, tensor: str) -> Iterator[ErrorSum]:
        """Settle where the error of a tensor is: what its one reader sends, or the sum of what two send."""
        sent = self.sent.pop(tensor, [])
        if len(sent) == 1:
            self.error_of[tensor] = sent[0]
        elif sent:
            (first, name), (second, other) = sent
            target = self._own_error(tensor)
            self.error_of[tensor] = target, tensor
            yield ErrorSum(tensor, (first, second), (name, other), target, self._mask(tensor))

    def _stage_back(self, stage: Stage, sums: tuple[ErrorSum, ...]) -> Backward:
        error, _ = self.error_of[stage.name]
        bias_error = error if stage.layer.bias and stage.name not in self.by_post else None
        return Backward(replace(stage, error=error, sink=self._sink(stage)), error, sums, (), bias_error)

    def _sink(self, stage: Stage) -> ErrorSink | None:
        tensor, layer = stage.layer.inputs[0], stage.layer
        if tensor not in self.network.trainable:
            return None
        name = self.network.error_name(tensor, layer)
        made_by = self.made_by[tensor]
        before = made_by if isinstance(made_by, Stage) and self._is_alone(tensor) else None
        target = self._sent_error(name, tensor) if before is None else before.error
        if before is not None:
            self.by_post.add(before.name)
        self._send(tensor, target, name)
        return ErrorSink(name, target, self._random(tensor), name == tensor and self.network.is_rectified(tensor), before)

    def _node_back(self, node: Node, sums: tuple[ErrorSum, ...]) -> Backward:
        return Backward(node, self.error_of[node.name][0], sums, tuple(self._node_sends(node)))

    def _node_sends(self, node: Node) -> Iterator[SentError]:
        layer = node.layer
        error, made = self.error_of[layer.name]
        for position, tensor in enumerate(layer.inputs):
            if tensor not in self.network.trainable:
                continue
            name = self.network.error_name(tensor, layer)
            mask = self._gate(layer, tensor) if name == tensor else None
            if isinstance(layer, Add) and mask is None:
                self._pass_on(layer, tensor)
                continue
            twice = layer.inputs.count(tensor) > 1
            target = self._sent_error(f"{name}/{position}" if twice else name, tensor)
            self._send(tensor, target, name if layer.rescales_error else made)
            yield SentError(node, position, name, error, made, target, mask)

    def _gate(self, layer: Layer, tensor: str) -> FeatureMap | None:
        """The mask of the error that the only reader of a tensor sends; what is passed on was masked by the same rectifier."""
        passed_on = not layer.rescales_error and self.network.rectifier_of(tensor) is self.network.rectifier_of(layer.name)
        return None if passed_on else self._mask(tensor)

    def _mask(self, tensor: str) -> FeatureMap | None:
        return self.map_of[tensor] if self.network.is_rectified(tensor) else None

    def _pass_on(self, layer: Layer, tensor: str) -> None:
        """What a layer sends is the error of its output, in the same memory."""
        if tensor in self.network.trainable:
            self._send(tensor, *self.error_of[layer.name])

    def _send(self, tensor: str, target: FeatureMap, name: str) -> None:
        self.sent.setdefault(tensor, []).append((target, name))

    def _is_alone(self, tensor: str) -> bool:
        """Whether nobody else reads a tensor, or one of those before it up to the layer that made it."""
        made_by = self.made_by[tensor].name
        while len(self.network.readers[tensor]) == 1:
            if tensor == made_by:
                return True
            tensor = self.network.layer(tensor).inputs[0]
        return False

    def _sent_error(self, name: str, tensor: str) -> FeatureMap:
        """The map for what a reader sends to a tensor: the tensor's own where it is alone."""
        return self._own_error(tensor) if self._is_alone(tensor) else self._error_map(name, tensor)

    def _own_error(self, tensor: str) -> FeatureMap:
        return self._error_map(self.made_by[tensor].name, tensor)

    def _error_map(self, name: str, tensor: str) -> FeatureMap:
        stored = self.map_of[tensor]
        self.order_of[name] = stored.name
        return FeatureMap(name, stored.channels, stored.rows, stored.columns, (name,))

    def _random(self, tensor: str) -> str:
        return f"random/{self.made_by[tensor].name}"
