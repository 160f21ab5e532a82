"""Convolution of the layers: XLA's, or a faster algorithm on a CPU."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks
from snnjax._axes import match_varying_axes
from snnjax._order import NEEDS_INPUTS, delay_until, forbid_second_derivative
from snnjax.conv import algorithms
from snnjax.conv.chunks import Padding
from snnjax.conv.form import make_form, turn
from snnjax.conv.plan import (
    choose_forward,
    choose_input_gradient,
    choose_kernel_gradient,
)


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    *,
    strides: int | tuple[int, int] = 1,
    padding: int | Padding = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
    keep: DTypeLike | None = None,
    spikes: bool | None = None,
) -> Array:
    r"""2-D convolution, fast to train on a CPU.

    .. math:: y_{nhwk} = \sum_{ijc} x_{n,\,sh+di-p,\,tw+ej-q,\,c}\; w_{ijck}

    On a GPU or TPU this is XLA's convolution with its gradients. On a CPU each of the
    three takes the fastest of several algorithms for its shape; `plan` shows which, and
    can measure them. `snnjax.conv.winograd` states the rounding error of Winograd's
    minimal filtering; with it, one infinite pixel also makes some neighbouring outputs
    NaN. Sums are in float32 at least.

    Args:
        x: ``[N, H, W, C]``, floating point.
        w: ``[k, m, C / groups, K]``, of x's dtype.
        strides: of both axes, or of each.
        padding: zeros on each side, or ``((top, bottom), (left, right))``.
        groups: K / groups output channels see C / groups input channels each, in order;
            more than one is XLA's convolution everywhere.
        dilation: d and e, the distance of the kernel's entries along both axes, or each
            axis; more than 1 is XLA's convolution everywhere.
        keep: keep x for the backward pass in this dtype, which must hold it exactly:
            int8 for spikes. Then there are no second derivatives, and where x is not
            held exactly, the gradients are NaN.
        spikes: x is whole numbers up to 127, which a TPU multiplies in fewer products;
            None is True with ``keep=jnp.int8``.

    Returns:
        ``[N, H', W', K]``.

    Raises:
        ValueError: shapes or dtypes that do not fit, strides below 1, nothing left.
        NotImplementedError: a second derivative with ``keep``; forward mode raises
            JAX's TypeError.
    """
    x, w = _checks.as_array("x", x), _checks.as_array("w", w)
    form = make_form(x.shape, w.shape, strides, padding, groups, dilation)
    if x.dtype != w.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x and w must have one floating-point dtype, got {x.dtype} and {w.dtype}"
        )
    spikes = _are_spikes(keep) if spikes is None else spikes
    form = form._replace(spikes=spikes)
    return _conv2d(*match_varying_axes(x, w), form, keep)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x, w, form, keep):
    path = choose_forward(x.shape, w.shape, form).path
    return _run_on_cpu(path, algorithms.FORWARD, form, x, w)


def _conv2d_fwd(x, w, form, keep):
    y = _conv2d(x, w, form, keep)
    if keep is None:
        return y, (x, w, None)
    kept = x.astype(keep)
    return y, (kept, w, jnp.all(kept.astype(x.dtype) == x))


def _conv2d_bwd(form, keep, residuals, dy):
    x, w, is_exact = residuals
    if keep is not None:
        w, dy = (forbid_second_derivative(a, NEEDS_INPUTS) for a in (w, dy))

    path = choose_kernel_gradient(x.shape, w.shape, form).path
    dw = _run_on_cpu(path, algorithms.KERNEL_GRADIENT, form, x, dy, size=w.shape[:2])
    if keep is not None:
        # Inside jit nothing can be raised; NaN is what training looks for.
        dw = jnp.where(is_exact, dw, jnp.nan)
    # The next layer's gradients wait for this kernel's, whose arrays are then freed.
    return delay_until(_input_gradient(x, w, dy, form), dw), dw


_conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _input_gradient(x, w, dy, form):
    if form.strides == (1, 1) and form.is_plain:
        # This is a convolution with the flipped kernel, and as fast as one.
        turned = jnp.flip(w, (0, 1)).swapaxes(2, 3)
        return _conv2d(dy, turned, turn(w.shape, form), None)
    path = choose_input_gradient(x.shape, w.shape, form).path
    size, plain = x.shape[1:3], form._replace(spikes=False)
    return _run_on_cpu(path, algorithms.INPUT_GRADIENT, plain, dy, w, size=size)


def _run_on_cpu(path, candidates, form, *arrays, **sizes):
    """Run an algorithm on a CPU, and XLA's own elsewhere."""
    native, fast = (
        partial(candidates[name], form=form, **sizes) for name in ("xla", path)
    )
    if path == "xla":
        return native(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=fast, default=native)


def _are_spikes(keep) -> bool:
    """Return True if x is whole numbers up to 127, which bfloat16 holds exactly."""
    return keep is not None and jnp.dtype(keep) == jnp.int8
