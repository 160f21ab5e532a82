"""Transformations of images on the device: augmentation, and a network's input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float32, Shaped

from snnjax import _checks


def normalize(images, mean, std) -> Float32[Array, "..."]:
    """Scale uint8 images ``[..., C]`` to ``(images / 255 - mean) / std``, float32.

    Raises:
        ValueError: if images are not uint8, or mean and std are not of shape ``[C]``.
    """
    images, mean, std = _checked_images(images, mean, std)
    return (images / 255 - mean) / std


def network_input(images, mean, std) -> Float32[Array, "..."]:
    """A batch of a `Dataset` as a model takes it, float32 and time first.

    Images are normalised, see `normalize`. Sequences are ``(frames - mean) / std``:
    with mean 0 and std 1 the counts themselves.

    Args:
        images: uint8 ``[B, H, W, C]``, or event frames ``[B, T, H, W, C]`` or trains
            ``[B, T, F]``, uint8 or float32.
        mean: of each channel, ``[C]``.
        std: of each channel, ``[C]``.

    Returns:
        ``[B, H, W, C]``, ``[T, B, H, W, C]`` or ``[T, B, F]``.

    Raises:
        ValueError: if images are of another rank, or as `normalize`.
    """
    if np.ndim(images) == 4:
        return normalize(images, mean, std)
    frames, mean, std = _checked_images(images, mean, std, (jnp.uint8, jnp.float32))
    if frames.ndim not in (3, 5):
        raise ValueError(
            "expected images [B, H, W, C], event frames [B, T, H, W, C] or trains [B, "
            f"T, F], got {list(frames.shape)}"
        )
    return jnp.moveaxis((frames - mean) / std, 1, 0)


def _checked_images(
    images: Any, mean: Any, std: Any, dtypes: tuple[Any, ...] = (jnp.uint8,)
) -> tuple[Array, Array, Array]:
    """All three as float32."""
    images = jnp.asarray(_checks.require_real("images", images))
    _checks.require_finite("mean", mean)
    _checks.require_positive("std", std)
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    fits = images.shape[-1:] == mean.shape == std.shape
    if images.dtype not in dtypes or not fits:
        raise ValueError(
            f"expected {jnp.dtype(dtypes[0])} images [..., C] with mean and std [C], "
            f"got {images.dtype} {images.shape}, {mean.shape}, {std.shape}; pass "
            "pixels 0 to 255, and normalize them once"
        )
    return images.astype(jnp.float32), mean, std


def augment(
    key: Array,
    images,
    *,
    pad: int = 4,
    flip: bool = True,
    cutout: int = 0,
    part: tuple[ArrayLike, int] = (0, 1),
) -> Shaped[Array, "b *t h w c"]:
    """Crop each image at random out of its zero-padded self, and mirror half of them.

    The defaults are CIFAR's; digits are small and not symmetric: ``pad=1, flip=False``.
    Comes before :func:`normalize`, so that the border is black.

    Args:
        key: the result is a pure function of it and the images.
        images: uint8 or float, ``[B, H, W, C]``; or event frames ``[B, T, H, W, C]``,
            which move as a whole.
        pad: how many pixels an image moves at most, in each direction; static.
        flip: whether an image is mirrored left to right with probability 1/2; static.
        cutout: side of a black square around a random pixel of each image, which may
            reach over the border; static. Source: DeVries and Taylor, `Cutout
            <https://arxiv.org/abs/1708.04552>`_, 2017.
        part: (i, n): the images are the i-th of n equal parts of a batch, and each
            moves as it does where the batch is whole; i may be traced.

    Returns:
        Shape and dtype of ``images``.

    Raises:
        ValueError: if images are not of rank 4 or 5, pad is negative, or part is not
            one of so many.
    """
    images = jnp.asarray(_checks.require_real("images", images))
    _checks.require_key(key)
    _checks.require_whole("cutout", cutout, 0)
    if images.ndim not in (4, 5) or not _checks.is_whole(pad) or pad < 0:
        raise ValueError(
            "expected images [B, H, W, C], or event frames [B, T, H, W, C], and pad "
            f"from 0, got {list(images.shape)} and {pad!r}; add an axis to a single "
            "image"
        )
    crop_key, flip_key = jax.random.split(key)
    index, parts = _checked(part)
    total = len(images) * parts

    def own(drawn):
        start = jnp.asarray(index) * len(images)
        return jax.lax.dynamic_slice_in_dim(drawn, start, len(images))

    # Of named dtypes, or float64 would draw others.
    corners = own(jax.random.randint(crop_key, (total, 2), 0, 2 * pad + 1, jnp.int32))
    zero, time = jnp.int32(0), images.ndim - 4
    border = [(0, 0)] * (1 + time) + [(pad, pad)] * 2 + [(0, 0)]
    padded = jnp.pad(images, border)

    def crop(image, corner):
        start = (*[zero] * time, *corner, zero)
        return jax.lax.dynamic_slice(image, start, images.shape[1:])

    images = jax.vmap(crop)(padded, corners)
    if flip:
        half = jnp.float32(0.5)
        shape = (total, *[1] * (images.ndim - 1))
        mirror = own(jax.random.bernoulli(flip_key, half, shape))
        images = jnp.where(mirror, images[..., ::-1, :], images)
    if cutout:
        cutout_key = jax.random.fold_in(crop_key, 1)
        high, wide = images.shape[-3:-1]
        shape, limits = (total, 2), jnp.array([high, wide], jnp.int32)
        centres = own(jax.random.randint(cutout_key, shape, 0, limits, jnp.int32))
        starts = centres - cutout // 2
        inside = [
            (i >= starts[:, axis, None]) & (i < starts[:, axis, None] + cutout)
            for axis, i in enumerate((jnp.arange(high)[None], jnp.arange(wide)[None]))
        ]
        square = inside[0][:, :, None] & inside[1][:, None, :]
        square = square.reshape(len(images), *[1] * time, high, wide, 1)
        images = jnp.where(square, jnp.zeros((), images.dtype), images)
    return images


def _checked(part: Any) -> tuple[ArrayLike, int]:
    """Another part would be moved to the last one, which then were there twice."""
    fits = isinstance(part, (tuple, list)) and len(part) == 2
    if fits and _checks.is_whole(part[1]) and part[1] >= 1:
        index, parts = part
        known = not isinstance(index, jax.Array)
        if not known or (_checks.is_whole(index) and 0 <= index < parts):
            return index, parts
    raise ValueError(
        f"part must be (i, n), the i-th of n parts, with 0 <= i < n, got {part!r}"
    )
