"""The modules that capture understands, one by one, and what to use in place of the others."""

from typing import Any

from torch import nn

from fixgrad.errors import UsageError
from fixgrad.network import Conv2d, Linear, MacLayer
from fixgrad.numbers import ConvGeometry


class UnsupportedError(Exception):
    """A node that becomes no layer; the message says what to use instead."""


#: Part of a module's class name -> what to do instead. The first part that fits counts.
_INSTEAD_OF_MODULE = (
    ("BatchNorm", "batch normalisation has no fixed-point form here; remove it, and start from a smaller learning rate"),
    ("GroupNorm", "normalisation has no fixed-point form here; remove it"),
    ("LayerNorm", "normalisation has no fixed-point form here; remove it"),
    ("InstanceNorm", "normalisation has no fixed-point form here; remove it"),
    ("Dropout", "random dropping is not trained here; remove it, or set p=0"),
    ("AvgPool", "use MaxPool2d, or a Conv2d with a stride"),
    ("MaxPool", "use MaxPool2d with windows that do not overlap"),
    ("Softmax", "remove it: the loss includes the softmax, the last layer must give logits"),
    ("Parametrized", "reparametrised weights change between steps; remove the parametrisation"),
    ("ConvTranspose", "use Conv2d"),
    ("Conv", "use Conv2d"),
    ("Upsample", "use Conv2d"),
    ("Linear", "use Linear"),
)
_ACTIVATIONS = (
    "Sigmoid", "Tanh", "GELU", "SiLU", "Mish", "ELU", "CELU", "SELU", "LeakyReLU", "PReLU", "RReLU", "ReLU6", "Softplus",
    "Hardswish", "Hardsigmoid", "Hardtanh", "LogSigmoid", "Softsign", "GLU", "Threshold",
)  # fmt: skip
_INSTEAD_OF_CALL = (
    ("add", "a sum of two tensors is not trained here; layers must form one chain"),
    ("cat", "a concatenation is not trained here; layers must form one chain"),
    ("dropout", "random dropping is not trained here; remove it"),
    ("batch_norm", "batch normalisation has no fixed-point form here; remove it"),
    ("avg_pool", "use MaxPool2d, or a Conv2d with a stride"),
    ("mean", "use MaxPool2d, or a Linear layer"),
    ("softmax", "remove it: the loss includes the softmax, the last layer must give logits"),
    ("conv", "use the module Conv2d, so that its weights have a name"),
    ("linear", "use the module Linear, so that its weights have a name"),
)
_UNDERSTOOD = "Conv2d, Linear, ReLU, MaxPool2d and Flatten are understood"


def advice_for_module(module: nn.Module) -> str:
    """The module's class, and what to use instead."""
    kind = type(module).__name__
    if kind in _ACTIVATIONS:
        return f"{kind}: use ReLU"
    for part, advice in _INSTEAD_OF_MODULE:
        if part in kind:
            return f"{kind}: {advice}"
    return f"{kind}: {_UNDERSTOOD}"


def advice_for_call(called: str) -> str:
    """The function or method, and what to use instead."""
    for activation in _ACTIVATIONS:
        if called.replace("_", "") == activation.lower():
            return f"{called}(): use ReLU"
    for part, advice in _INSTEAD_OF_CALL:
        if part in called:
            return f"{called}(): {advice}"
    return f"{called}(): {_UNDERSTOOD}"


def mac_layer(module: nn.Module, name: str, source: str) -> MacLayer:
    """The layer of a Conv2d or Linear module.

    Raises:
        UnsupportedError: it has a padding that is not zeros, or frozen weights.
    """
    if not all(parameter.requires_grad for parameter in module.parameters()):
        raise UnsupportedError("has frozen weights (requires_grad is False), but all weights are trained; unfreeze them")
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


def pool_window(
    kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> tuple[int, int]:
    """Window of a max-pooling (rows, columns).

    Raises:
        UnsupportedError: its windows overlap, leave gaps, or reach beyond the image.
    """
    window = _pair(kernel)
    if stride is not None and stride != () and _pair(stride) != window:
        raise UnsupportedError(
            f"pools windows of {window} with stride {_pair(stride)}; they must not overlap, stride = kernel_size"
        )
    if _pair(padding) != (0, 0) or _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        raise UnsupportedError("use max-pooling without padding, dilation, ceil_mode and return_indices")
    return window


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    values = tuple(value)
    return (int(values[0]), int(values[-1]))
