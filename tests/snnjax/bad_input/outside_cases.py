"""Bad input from outside: weights of other libraries, data sets, and checkpoints."""

import os
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from snnjax import calibrate, data, models, runs
from snnjax.interop import spikingjelly
from snnjax.quantize import QuantSpec
from tests.snnjax.bad_input.table import NAN, NO_ARRAY, NO_SIZE, allowed, refused

IMAGES, LABELS = np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 2])
X = np.ones((2, 8, 8, 1), np.float32)


def cases():
    """Yield the cases of this module."""
    yield from interop_cases()
    yield from dataset_cases()
    yield from loading_cases()
    yield from transform_cases()
    yield from checkpoint_cases()


def checkpoint_cases():
    """Steps and numbers of checkpoints."""
    yield from refused(
        partial(runs.RunCheckpoints, tempfile.mkdtemp()), {}, keep=NO_SIZE
    )
    with runs.RunCheckpoints(tempfile.mkdtemp()) as history:
        for step in (-1, 2.5):
            call = partial(history.save, step, {"x": X})
            yield f"History.save: {step}", call, "step", step


def interop_cases():
    """Weights of others."""
    model = models.sew_resnet8(3, width=4, in_channels=1, rngs=nnx.Rngs(0))
    state, key = spikingjelly.save(model), "conv1.weight"
    load = partial(spikingjelly.load, model)
    yield allowed("spikingjelly.load: as saved", partial(load, state))
    weight = state[key]
    for bad, value in (
        (weight * np.nan, "NaN"),
        (weight + np.inf, "infinite"),
        (weight[:1], (4, 1, 3, 3)),
        (weight.astype(str), "<U"),
        (weight * 1j, "complex64"),
        (None, None),
    ):
        call = partial(load, {**state, key: bad})
        yield f"spikingjelly.load: {value}", call, key, value
    quantized = calibrate.quantize(model, {"layer1.*conv.": QuantSpec("lsq", bits=2)})
    without = {name: value for name, value in state.items() if name != key}
    for name, call, word, value in (
        ("a weight missing", partial(load, without), "missing", key),
        (
            "a weight too many",
            partial(load, {**state, "more": weight}),
            "unused",
            "more",
        ),
        ("a key", partial(load, {**state, 3: weight}), "names", 3),
        ("kind of file", partial(load, "weights.bin"), ".safetensors", "weights.bin"),
        ("no file", partial(load, "gone.safetensors"), "file", "gone.safetensors"),
        (
            "quantized",
            partial(spikingjelly.load, quantized, state),
            "model",
            "quantize",
        ),
    ):
        yield f"spikingjelly.load: {name}", call, word, value
    yield from refused(
        spikingjelly.load,
        {"model": model, "state_dict": state},
        state_dict=[None, 3, [1]],
        model=[None],
    )
    yield from refused(spikingjelly.save, {}, model=[None])


def dataset_cases():
    """Data sets from arrays."""
    yield from refused(
        data.from_arrays,
        {"images": IMAGES, "labels": LABELS},
        images=[
            *(IMAGES.astype(np.float32), IMAGES.astype(int), IMAGES[:0]),
            *(IMAGES[:, :0], IMAGES[..., :0], IMAGES[:, :, 0, 0], IMAGES[None, None]),
            *("text", None, [[1], [1, 2]]),
        ],
        labels=[
            *(LABELS[:2], LABELS.astype(np.float32), np.eye(3, dtype=int), LABELS - 1),
            *(LABELS > 0, LABELS * 2**31),
            *("text", None, [[1], [1, 2], [3]]),
        ],
        num_classes=NO_SIZE,
    )
    call = partial(data.from_arrays, IMAGES, LABELS, num_classes=2)
    yield "from_arrays: label beyond the classes", call, "labels", 2
    good = {"images": IMAGES, "labels": LABELS, "num_classes": 3, "name": "mine"}
    good |= {"mean": [0.0], "std": [1.0]}
    bad = {"mean": [[NAN], [], ["a"], [0.5, 0.5], 0.5], "std": [[0.0], [-1], [np.inf]]}
    bad |= {"images": [IMAGES / 255], "labels": [LABELS[:2]], "num_classes": [0]}
    yield from refused(data.Dataset, good, **bad)


def loading_cases():
    """Data sets by name and from files."""
    good = {"name": "digits", "split": "test"}
    bad = {"split": ["valid"], "limit": [*NO_SIZE, -1, 10**6]}
    yield from refused(data.load, good, **bad)
    yield "load: name", partial(data.load, "mnist", "train"), "digits", "mnist"
    call = partial(data.load, "cifar10", "test", data_dir="nowhere")
    yield "load: no data", call, "cifar10", "nowhere"
    yield "from_npz: gone", partial(data.from_npz, "gone.npz"), ".npz", "gone.npz"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        np.savez(path, images=IMAGES)
        yield "from_npz: keys", partial(data.from_npz, path), "labels", "images"
        for images, labels, word, value in (
            (IMAGES / 255, LABELS, "images", "float64"),
            (IMAGES, np.array([0, None, 1], object), "pickled", "a.npz"),
        ):
            np.savez(path, images=images, labels=labels)
            yield f"from_npz: {value}", partial(data.from_npz, path), word, value
        path.write_bytes(os.urandom(100))
        yield "from_npz: broken", partial(data.from_npz, path), ".npz", "a.npz"


def transform_cases():
    """Images normalized and augmented."""
    yield from refused(
        data.normalize,
        {"images": IMAGES, "mean": [0.0], "std": [1.0]},
        images=[IMAGES.astype(np.float32), "text"],
        mean=[["a"], [NAN]],
        std=[[0.0]],
    )
    sizes = partial(data.normalize, IMAGES, [0.0, 0.0], [1.0])
    yield "normalize: sizes", sizes, "mean", (2,)
    good = {"key": jax.random.key(0), "images": IMAGES}
    bad = [*NO_ARRAY, IMAGES[0]]
    parts = [(2, 2), (-1, 2), (0, 0), 3, (0,), (0.5, 2), (0, True)]
    yield from refused(
        data.augment, good, images=bad, pad=[-1, 1.5], key=[0], part=parts
    )
    none = partial(data.augment, good["key"], IMAGES[:0], pad=1)
    yield allowed("augment: no image", none)
