"""Networks on digits, in full precision and quantized in several ways."""

from collections.abc import Iterator
from typing import Any

import optax
from flax import nnx

from snnjax import calibrate, data, models, train
from snnjax.quantize import QuantSpec

ROUNDED = {
    "mid-rise 2": QuantSpec(bits=2, clip=1.0, grid="mid_rise"),
    "mid-rise 4": QuantSpec(bits=4, clip=1.0, grid="mid_rise"),
    "mid-tread 3": QuantSpec(bits=3, clip="absmax"),
    "mid-tread 4": QuantSpec(bits=4, clip="absmax"),
    "mid-tread 8": QuantSpec(bits=8, clip="absmax"),
    "lq_net 2": QuantSpec("lq_net", bits=2),
    "lq_net 3": QuantSpec("lq_net", bits=3),
}
RESTORED = ("mid-rise 2", "mid-tread 3", "lq_net 2")
TRAINED = ("mid-rise 2", "mid-tread 3", "lq_net 2")
KERNELS = r"layer.*(conv\d|downsample\.0)"


def make_networks(
    width: int, epochs: int, tuning_epochs: int, seed: int
) -> Iterator[tuple[str, Any]]:
    """Yield names and networks: the full-precision one, and those made of it.

    PTQ rounds weights; "restored" re-estimates BatchNorm too; QAT fine-tunes, and so
    does the control, in full precision.
    """
    digits = data.load("digits", "train")
    plain = models.sew_resnet8(10, in_channels=1, width=width, rngs=nnx.Rngs(seed))
    options: dict[str, Any] = dict(batch_size=64, seed=seed)
    plain = train.fit(
        plain, digits, optimizer=optax.adam(3e-3), epochs=epochs, **options
    )
    yield "full precision", plain
    options |= dict(optimizer=optax.adam(1e-3), epochs=tuning_epochs)
    yield "control", train.fit(plain, digits, **options)
    for name, spec in ROUNDED.items():
        rounded = calibrate.quantize(plain, {KERNELS: spec})
        yield f"PTQ {name}", rounded
        if name in RESTORED:
            restored = calibrate.reestimate_batchnorm(rounded, digits)
            yield f"restored {name}", restored
        if name in TRAINED:
            yield f"QAT {name}", train.fit(rounded, digits, **options)
