"""Convolution of the layers: XLA's, or a faster algorithm on a CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from snnjax import _checks
from snnjax._axes import match_varying_axes
from snnjax._order import NEEDS_INPUTS, delay_until, forbid_second_derivative
from snnjax.conv import gemm, winograd
from snnjax.conv.chunks import Padding

_LAYOUT = ("NHWC", "HWIO", "NHWC")


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

    On a GPU or TPU this is XLA's convolution with its gradients. On a CPU, kernel
    gradients are matrix products in chunks that stay in the cache, and 3x3 convolutions
    of stride 1 with many channels, with their gradients, use Winograd's minimal
    filtering. `snnjax.conv.winograd` states its rounding error; with it, one infinite
    pixel also makes some neighbouring outputs NaN. Sums are in float32 at least.

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
    _checks.require_whole("groups", groups, 1)
    _check(x, w, groups)
    pair = (strides, strides) if isinstance(strides, int | np.integer) else strides
    if not _is_whole_pair(pair, 1):
        raise ValueError(
            f"strides must be at least 1, got {strides!r}; give a whole number or two"
        )
    pads = ((padding,) * 2,) * 2 if isinstance(padding, int | np.integer) else padding
    if not (
        isinstance(pads, tuple) and len(pads) == 2 and all(map(_is_whole_pair, pads))
    ):
        raise ValueError(
            "padding must be at least 0 on each side, a whole number or ((top, "
            f"bottom), (left, right)), got {padding!r}"
        )
    apart = (dilation, dilation) if isinstance(dilation, int | np.integer) else dilation
    if not _is_whole_pair(apart, 1):
        raise ValueError(
            f"dilation must be at least 1, got {dilation!r}; give a whole number or two"
        )
    image = x.shape[1:3]
    kernel = tuple((k - 1) * d + 1 for k, d in zip(w.shape[:2], apart, strict=True))
    if any(n + sum(p) < k for n, p, k in zip(image, pads, kernel, strict=True)):
        raise ValueError(
            f"the kernel {kernel} is larger than the image {image} with its padding "
            f"{pads}"
        )
    spikes = _are_spikes(keep) if spikes is None else spikes
    form = _Form(pair, pads, groups, apart, spikes)
    return _conv2d(*match_varying_axes(x, w), form, keep)


class _Form(NamedTuple):
    """Static choices of a convolution, checked."""

    strides: tuple[int, int]
    padding: Padding
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)
    spikes: bool = False

    @property
    def is_plain(self) -> bool:
        """True where the algorithms of this package apply."""
        return self.groups == 1 and self.dilation == (1, 1)


def _is_whole_pair(pair, least: int = 0) -> bool:
    return (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(n, int | np.integer) and n >= least for n in pair)
    )


def _check(x, w, groups):
    if x.ndim != 4 or w.ndim != 4 or x.shape[-1] != w.shape[2] * groups:
        raise ValueError(
            "x must be [N, H, W, C] and w [k, m, C / groups, K] with the same C, got "
            f"shapes {x.shape} and {w.shape}, groups {groups}"
        )
    if w.shape[3] % groups:
        raise ValueError(f"groups must divide {w.shape[3]} outputs, got {groups}")
    if 0 in w.shape:
        raise ValueError(f"w must have sizes of at least 1, got shape {w.shape}")
    if x.dtype != w.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x and w must have one floating-point dtype, got {x.dtype} and {w.dtype}"
        )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x, w, form, keep):
    native = partial(_convolve_by_xla, form=form)
    if not (form.is_plain and _suits_winograd(x, w, form.strides, form.padding)):
        return native(x, w)
    fast = partial(winograd.convolve, padding=form.padding)
    return jax.lax.platform_dependent(x, w, cpu=fast, default=native)


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

    def native_gradient(x, dy):
        native = partial(_convolve_by_xla, x.astype(dy.dtype), form=form)
        return jax.vjp(native, w)[1](dy)[0]

    fast = None
    if form.is_plain:
        fast = _choose_kernel_gradient(x, w, dy, form.strides, form.padding)
    if fast is None:
        dw = native_gradient(x, dy)
    else:
        dw = jax.lax.platform_dependent(x, dy, cpu=fast, default=native_gradient)
    if keep is not None:
        # Inside jit nothing can be raised; NaN is what training looks for.
        dw = jnp.where(is_exact, dw, jnp.nan)
    # The next layer's gradients wait for this kernel's, whose arrays are then freed.
    return delay_until(_input_gradient(x, w, dy, form), dw), dw


_conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _input_gradient(x, w, dy, form):
    if form.strides == (1, 1) and form.is_plain:
        # This is a convolution with the flipped kernel, and as fast as one.
        sizes = zip(w.shape[:2], form.padding, strict=True)
        pads: Any = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in sizes)
        turned = jnp.flip(w, (0, 1)).swapaxes(2, 3)
        return _conv2d(dy, turned, _Form((1, 1), pads), None)
    native = partial(_convolve_by_xla, w=w, form=form._replace(spikes=False))
    return jax.vjp(native, x.astype(dy.dtype))[1](dy)[0]


def _are_spikes(keep) -> bool:
    """Return True if x is whole numbers up to 127, which bfloat16 holds exactly."""
    return keep is not None and jnp.dtype(keep) == jnp.int8


def _convolve_by_xla(x, w, form):
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


# Conditions under which the CPU algorithms are faster, measured with jax 0.10 and 0.12
# (docs/performance.md): many channels and many positions make large products.


def _suits_winograd(x, w, strides, padding) -> bool:
    n, height, width, _ = x.shape
    width = width + sum(padding[1]) - w.shape[1] + 1
    return (
        w.shape[:2] == (3, 3)
        and strides == (1, 1)
        and min(w.shape[2:]) >= 64
        and width >= winograd.TILE
        and n * height * width >= 1024
    )


def _choose_kernel_gradient(
    x, w, dy, strides, padding
) -> Callable[[Array, Array], Array] | None:
    """Choose the fast algorithm for a kernel gradient, or None for XLA's."""
    n, height, width, _ = dy.shape
    size = w.shape[:2]
    channels, positions = min(w.shape[2:]), n * height * width
    if channels < 16 or positions < 128 or (channels < 32 and positions < 2**15):
        return None
    if size == (3, 3) and strides == (1, 1) and width >= winograd.TILE:
        return partial(winograd.kernel_gradient, k=3, padding=padding)
    columns = gemm.columns_gradient
    return partial(columns, kernel_size=size, strides=strides, padding=padding)
