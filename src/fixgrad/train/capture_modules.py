"""The modules that capture understands, one by one, and what to use in place of the others."""

from typing import Any

from torch import nn

from fixgrad.errors import UsageError
from fixgrad.network import AvgPool2d, BatchNorm, Conv2d, Linear, MacLayer, MaxPool2d, SlidingMaxPool2d
from fixgrad.numbers import ConvGeometry


class UnsupportedError(Exception):
    """A node that becomes no layer; the message says what to use instead."""


#: Part of a module's class name -> what to do instead. The first part that fits counts.
_INSTEAD_OF_MODULE = (
    ("SyncBatchNorm", "use BatchNorm2d: its sums go over all workers"),
    ("BatchNorm3d", "use BatchNorm2d"),
    ("GroupNorm", "use BatchNorm2d"),
    ("LayerNorm", "use BatchNorm2d"),
    ("InstanceNorm", "use BatchNorm2d"),
    ("LocalResponseNorm", "use BatchNorm2d"),
    ("Dropout", "whole channels are not dropped here; use Dropout"),
    ("AdaptiveMaxPool", "use MaxPool2d with the window that gives this size"),
    ("AvgPool", "use AvgPool2d or AdaptiveAvgPool2d"),
    ("MaxPool", "use MaxPool2d"),
    ("LPPool", "use AvgPool2d"),
    ("Softmax", "remove it: the loss includes the softmax, the last layer must give logits"),
    ("Parametrized", "reparametrised weights change between steps; remove the parametrisation"),
    ("ConvTranspose", "use Conv2d"),
    ("Lazy", "run the module once before, so that it has weights"),
    ("Conv", "use Conv2d"),
    ("Upsample", "use Conv2d"),
    ("Pad2d", "use the padding of Conv2d"),
    ("Linear", "use Linear"),
    ("Attention", "use Conv2d and Linear"),
    ("Embedding", "the input must be images; use Conv2d"),
)
_ACTIVATIONS = (
    "Sigmoid", "Tanh", "GELU", "SiLU", "Mish", "ELU", "CELU", "SELU", "LeakyReLU", "PReLU", "RReLU", "Softplus", "Hardswish",
    "Hardsigmoid", "Hardtanh", "LogSigmoid", "Softsign", "GLU", "Threshold",
)  # fmt: skip
_INSTEAD_OF_CALL = (
    ("batch_norm", "use the module BatchNorm2d, so that its parameters have a name"),
    ("layer_norm", "use the module BatchNorm2d"),
    ("dropout", "whole channels are not dropped here; use Dropout"),
    ("max_pool", "use max_pool2d"),
    ("avg_pool", "use avg_pool2d"),
    ("softmax", "remove it: the loss includes the softmax, the last layer must give logits"),
    ("sub", "use a sum, and let the layer before it learn the sign"),
    ("mul", "products of two tensors are not trained here; use a sum or a concatenation"),
    ("chunk", "use two layers, one for each part"),
    ("split", "use two layers, one for each part"),
    ("interpolate", "use Conv2d"),
    ("conv", "use the module Conv2d, so that its weights have a name"),
    ("linear", "use the module Linear, so that its weights have a name"),
)
_UNDERSTOOD = (
    "Conv2d, Linear, BatchNorm2d, ReLU, ReLU6, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Dropout, Flatten, sums and "
    "concatenations are understood"
)


def understood_as(kind: str) -> str:
    """What to say of a module or function of which nothing better is known."""
    return f"{kind}: {_UNDERSTOOD}"


def advice_for_module(module: nn.Module) -> str:
    """The module's class, and what to use instead."""
    kind = type(module).__name__
    if kind in _ACTIVATIONS:
        return f"{kind}: use ReLU or ReLU6"
    for part, advice in _INSTEAD_OF_MODULE:
        if part in kind:
            return f"{kind}: {advice}"
    return understood_as(kind)


def advice_for_call(called: str) -> str:
    """The function or method, and what to use instead."""
    for activation in _ACTIVATIONS:
        if called.replace("_", "") == activation.lower():
            return f"{called}(): use ReLU or ReLU6"
    for part, advice in _INSTEAD_OF_CALL:
        if part in called:
            return f"{called}(): {advice}"
    return understood_as(f"{called}()")


def mac_layer(module: nn.Module, name: str, source: str) -> MacLayer:
    """The layer of a Conv2d or Linear module.

    Raises:
        UnsupportedError: it has a padding that is not zeros, or frozen weights.
    """
    _refuse_frozen(module)
    if isinstance(module, nn.Linear):
        return Linear(
            name=name,
            inputs=(source,),
            in_features=module.in_features,
            out_features=module.out_features,
            bias=module.bias is not None,
        )
    assert isinstance(module, nn.Conv2d)
    return Conv2d(
        name=name,
        inputs=(source,),
        in_channels=module.in_channels,
        filters=module.out_channels,
        kernel=_pair(module.kernel_size),
        geometry=_geometry(module),
        bias=module.bias is not None,
    )


def _geometry(conv: nn.Conv2d) -> ConvGeometry:
    if conv.padding_mode != "zeros":
        raise UnsupportedError(f"padding_mode is {conv.padding_mode!r}; use 'zeros'")
    stride, dilation = _pair(conv.stride), _pair(conv.dilation)
    try:
        return ConvGeometry(stride, _padding(conv, dilation), dilation, conv.groups)
    except UsageError as error:
        raise UnsupportedError(str(error)) from None


def _padding(conv: nn.Conv2d, dilation: tuple[int, int]) -> tuple[int, int]:
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding == "same":
        total = tuple(reach * (taps - 1) for reach, taps in zip(dilation, _pair(conv.kernel_size), strict=True))
        if any(rows % 2 for rows in total):
            raise UnsupportedError("padding 'same' of an even kernel is not the same on both sides; give a number")
        return (total[0] // 2, total[1] // 2)
    return _pair(conv.padding)


def batch_norm(module: nn.BatchNorm2d | nn.BatchNorm1d, name: str, source: str) -> BatchNorm:
    """The layer of a batch normalisation.

    Raises:
        UnsupportedError: it has no parameters or no running statistics, or frozen parameters.
    """
    if not module.affine:
        raise UnsupportedError("has no factors and offsets; set affine=True")
    if not module.track_running_stats or module.momentum is None:
        raise UnsupportedError("has no exponential running statistics; set track_running_stats=True and a momentum")
    _refuse_frozen(module)
    return BatchNorm(name=name, inputs=(source,), channels=module.num_features, eps=module.eps, momentum=module.momentum)


def max_pool(
    name: str,
    source: str,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> MaxPool2d | SlidingMaxPool2d:
    """The layer of a max-pooling.

    Raises:
        UnsupportedError: its windows reach beyond the padding, or it gives indices.
    """
    if ceil_mode or return_indices:
        raise UnsupportedError("use max-pooling without ceil_mode and return_indices")
    window, geometry = _pair(kernel_size), _pool_geometry(kernel_size, stride, padding, dilation)
    if geometry == ConvGeometry(window):
        return MaxPool2d(name=name, inputs=(source,), window=window)
    return SlidingMaxPool2d(name=name, inputs=(source,), window=window, geometry=geometry)


def average_pool(
    name: str,
    source: str,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> AvgPool2d:
    """The layer of an average pooling.

    Raises:
        UnsupportedError: its windows reach beyond the padding, or it divides by another number.
    """
    if ceil_mode or divisor_override is not None:
        raise UnsupportedError("use average pooling without ceil_mode and divisor_override")
    geometry = _pool_geometry(kernel_size, stride, padding, 1)
    return AvgPool2d(
        name=name, inputs=(source,), window=_pair(kernel_size), geometry=geometry, count_padding=bool(count_include_pad)
    )


def _pool_geometry(kernel: Any, stride: Any, padding: Any, dilation: Any) -> ConvGeometry:
    moves = _pair(kernel if stride is None or stride == () else stride)
    return ConvGeometry(moves, _pair(padding), _pair(dilation))


def _refuse_frozen(module: nn.Module) -> None:
    if not all(parameter.requires_grad for parameter in module.parameters()):
        raise UnsupportedError("has frozen weights (requires_grad is False), but all weights are trained; unfreeze them")


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    values = tuple(value)
    return (int(values[0]), int(values[-1]))
