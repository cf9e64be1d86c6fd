"""A whole step as instructions: FF of every stage, the loss, then NG, WG and UPDATE from the last stage to the first."""

from fixgrad.compiler.context import STEP, Context
from fixgrad.compiler.graph import Node
from fixgrad.compiler.layout import LABEL_BYTES
from fixgrad.compiler.map_phase import ForwardPhase, NeuronGradientPhase
from fixgrad.compiler.node_phase import lower_bias_error, lower_error_sum, lower_node, lower_node_errors
from fixgrad.compiler.resources import Waits
from fixgrad.compiler.stream import Label
from fixgrad.compiler.tiling import LayerTiling
from fixgrad.compiler.weight_phase import WeightPhase
from fixgrad.machine.instructions import Unit
from fixgrad.network import Recipe


def lower_step(context: Context, tilings: list[LayerTiling], recipe: Recipe) -> None:
    """Emit a training step, or (where `context.trains` is not set) a forward pass, into the context's stream."""
    context.load_params(STEP)
    for step in context.graph.steps:
        if isinstance(step, Node):
            lower_node(context, step)
        else:
            ForwardPhase(context, step, tilings[step.index].ff).lower()
    if context.trains:
        _lower_loss(context)
        _lower_backward(context, tilings, recipe)
        context.store_registers()
    context.stream.emit("HALT", STEP, 0, _everything(context), {})


def _lower_backward(context: Context, tilings: list[LayerTiling], recipe: Recipe) -> None:
    """NG of each stage, then what the elementwise unit makes of it, and WG when the next stage is reached.

    So POST's queue has the elementwise instructions before WG fills the others, and they run meanwhile.
    """
    waiting: WeightPhase | None = None
    for back in context.graph.backward:
        for item in back.sums:
            lower_error_sum(context, item)
        stage = back.step
        if isinstance(stage, Node):
            lower_node_errors(context, back)
            continue
        tiling = tilings[stage.index]
        if waiting is not None:
            waiting.lower()
        lower_bias_error(context, back)
        if tiling.ng is not None:
            NeuronGradientPhase(context, stage, tiling.ng).lower()
        waiting = None if tiling.wg is None else WeightPhase(context, stage, tiling.wg, recipe)
    if waiting is not None:
        waiting.lower()


def _lower_loss(context: Context) -> None:
    stage, layout, lanes = context.stages[-1], context.layout, context.machine.lanes
    name, layer, logits = f"loss/{stage.name}", stage.layer, stage.target
    label = Label(stage.name, "loss")
    param, loaded = context.use_param(name, label)
    for micro_batch in range(context.micro_batches):
        fields = {
            "logits": context.map_address(f"activation/{logits.name}", logits, micro_batch, 0, layer.out_bits),
            "logit_bits": layer.out_bits,
            "labels": layout.address("labels") + LABEL_BYTES * lanes * micro_batch,
            "target": context.map_address(f"error/{stage.name}", stage.error, micro_batch, 0),
            "with_bias": int(layer.bias),
            "element": layout.address(f"random/{stage.name}"),
            "classes": layer.out_channels,
            "param": param,
            "images": context.images(micro_batch),
            "random_batch": context.batch,
            "random_image": micro_batch * lanes,
            "statistics": context.register(name),
        }
        if layer.bias:
            fields["bias_gradient"] = layout.address(f"bias_gradient/{stage.name}")
        # Logits and labels of a micro-batch are in place once POST has stored the former: LOSS is POST's own.
        post = context.stream.emit("LOSS", label, stage.index, loaded, fields)
        ready = context.ready_map(f"error/{stage.name}", stage.error)
        ready.written(micro_batch, slice(None), slice(None), post)


def _everything(context: Context) -> Waits:
    issued = context.stream.issued
    return Waits(issued(Unit.LOAD), issued(Unit.COMPUTE), issued(Unit.POST), context.updates())
