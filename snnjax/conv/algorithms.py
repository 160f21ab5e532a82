"""The algorithms of a convolution and of its gradients, by the names of `plan`.

Forward functions take (x, w), input gradients (dy, w), kernel gradients (x, dy).
"""

import jax
import jax.numpy as jnp
from jax import Array

from snnjax._axes import match_varying_axes
from snnjax.conv import gemm, neighbours, phases, winograd
from snnjax.conv.form import Form

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _convolve_by_xla(x: Array, w: Array, form: Form) -> Array:
    # A TPU multiplies bfloat16: "highest" takes six products. Spikes are exact in
    # bfloat16, so three products give the same sum. Other backends use the stricter of
    # the two precisions.
    asked = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009
    full = asked in ("highest", "float32")
    split = (jax.lax.Precision.DEFAULT, jax.lax.Precision.HIGHEST)
    return jax.lax.conv_general_dilated(
        x,
        w,
        form.strides,
        form.padding,
        rhs_dilation=form.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=form.groups,
        precision=split if form.spikes and full else None,
    )


def _input_gradient_by_xla(dy: Array, w: Array, form: Form, size) -> Array:
    x = jnp.zeros((dy.shape[0], *size, w.shape[2] * form.groups), dy.dtype)
    x, dy, w = match_varying_axes(x, dy, w)
    return jax.vjp(lambda x: _convolve_by_xla(x, w, form), x)[1](dy)[0]


def _kernel_gradient_by_xla(x: Array, dy: Array, form: Form, size) -> Array:
    x = x.astype(dy.dtype)
    w = jnp.zeros((*size, x.shape[-1] // form.groups, dy.shape[-1]), dy.dtype)
    w, x, dy = match_varying_axes(w, x, dy)
    return jax.vjp(lambda w: _convolve_by_xla(x, w, form), w)[1](dy)[0]


FORWARD = {
    "xla": _convolve_by_xla,
    "neighbours": lambda x, w, form: neighbours.convolve(x, w, form.padding),
    "winograd": lambda x, w, form: winograd.convolve(x, w, form.padding),
}
INPUT_GRADIENT = {
    "xla": _input_gradient_by_xla,
    "phases": lambda dy, w, form, size: phases.input_gradient(
        dy, w, size, form.strides, form.padding
    ),
}
KERNEL_GRADIENT = {
    "xla": _kernel_gradient_by_xla,
    "columns": lambda x, dy, form, size: gemm.columns_gradient(
        x, dy, size, form.strides, form.padding
    ),
    "winograd": lambda x, dy, form, size: winograd.kernel_gradient(
        x, dy, size[0], form.padding
    ),
}
