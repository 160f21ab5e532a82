"""Bad input from outside: weights of other libraries, data sets, and checkpoints."""

import os
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from snnjax import calibrate, data, models
from snnjax.interop import spikingjelly
from snnjax.quantize import QuantSpec

RNGS = nnx.Rngs(0)
IMAGES, LABELS = np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 2])
BAD_ARRAYS = (("text", "'text'"), (None, "None"), (np.array([None]), "object"))
X = np.ones((2, 8, 8, 1), np.float32)


def cases():
    """Name, call, what the error says."""
    yield from interop_cases()
    yield from data_cases()
    yield from checkpoint_cases()


def checkpoint_cases():
    """Steps and numbers of checkpoints."""
    for bad in (0, -1, 1.5, "2", None):
        call = partial(runs.RunCheckpoints, tempfile.mkdtemp(), keep=bad)
        yield f"History: keep={bad!r}", call, f"keep must be .*got {bad!r}"
    with runs.RunCheckpoints(tempfile.mkdtemp()) as history:
        for bad in (-1, 2.5, "2", None):
            call = partial(history.save, bad, {"x": X})
            yield f"History.save: {bad!r}", call, f"step must be .*got {bad!r}"


def interop_cases():
    """Weights of others."""
    model = models.sew_resnet8(3, width=4, in_channels=1, rngs=RNGS)
    good = spikingjelly.save(model)
    key = "conv1.weight"
    yield "spikingjelly.load: as saved", partial(spikingjelly.load, model, good), None
    for bad, says in (
        (good[key] * np.nan, "NaN or infinite"),
        (good[key] + np.inf, "NaN or infinite"),
        (good[key][:1], "expected \\(4, 1, 3, 3\\)"),
        (good[key].astype(str), "must be real numbers, got <U"),
        (good[key] * 1j, "must be real numbers, got complex64"),
        (None, "must be real numbers, got None"),
    ):
        call = partial(spikingjelly.load, model, {**good, key: bad})
        yield f"spikingjelly.load: {says}", call, f"{key}.* {says}"
    without = {name: value for name, value in good.items() if name != key}
    call = partial(spikingjelly.load, model, without)
    yield "spikingjelly.load: missing", call, f"missing \\['{key}'\\]"
    call = partial(spikingjelly.load, model, {**good, "more": good[key]})
    yield "spikingjelly.load: unused", call, "unused \\['more'\\]"
    call = partial(spikingjelly.load, model, {**good, 3: good[key]})
    yield "spikingjelly.load: a key", call, "names.*got 3"
    for bad in (None, 3, [1]):
        says = f"state_dict must be .*got {bad!r}".replace("[", ".").replace("]", ".")
        call = partial(spikingjelly.load, model, bad)
        yield f"spikingjelly.load: {bad!r}", call, says
    call = partial(spikingjelly.load, model, "weights.bin")
    yield (
        "spikingjelly.load: kind of file",
        call,
        "expected a .safetensors.*weights.bin",
    )
    call = partial(spikingjelly.load, model, "gone.safetensors")
    yield "spikingjelly.load: no file", call, "no file gone.safetensors"
    for bad in (None, {}):
        for name, run in (
            ("load", partial(spikingjelly.load, bad, good)),
            ("save", partial(spikingjelly.save, bad)),
        ):
            says = "model must be a models.SEWResNet, got"
            yield f"spikingjelly.{name}: {bad!r}", run, says
    quantized = calibrate.quantize(model, {"layer1.*conv.": QuantSpec("lsq", bits=2)})
    call = partial(spikingjelly.load, quantized, good)
    yield "spikingjelly.load: quantized", call, "full-precision model and quantize that"


def data_cases():
    """Data sets."""
    run = data.from_arrays
    for bad, says in (
        (IMAGES.astype(np.float32), "images: expected uint8, got float32"),
        ("text", "images must be real numbers, got 'text'"),
        (None, "images must be real numbers, got None"),
        (IMAGES[0], "images: expected \\[N, H, W, C\\].*\\[8, 8, 1\\]"),
        (IMAGES[:0], "images: expected \\[N, H, W, C\\].*\\[0, 8, 8, 1\\]"),
        ([[1], [1, 2]], "images must be real numbers, got .*1, 2"),
    ):
        yield f"from_arrays: {bad!r:.30}", partial(run, bad, LABELS), says
    for bad, says in (
        (LABELS[:2], "labels: expected integers \\[3\\].*\\[2\\]"),
        (LABELS.astype(np.float32), "got float32 \\[3\\]"),
        (np.eye(3, dtype=int), "\\[3, 3\\].*one-hot"),
        (LABELS - 1, "labels: expected 0...*got -1..1"),
        ("text", "labels must be real numbers, got 'text'"),
        (None, "labels must be real numbers, got None"),
        ([[1], [1, 2], [3]], "labels must be real numbers, got .*1, 2"),
    ):
        yield f"from_arrays: labels {bad!r:.30}", partial(run, IMAGES, bad), says
    bad = partial(run, IMAGES, LABELS, num_classes=2)
    yield "from_arrays: beyond the classes", bad, "labels: expected 0..1, got 0..2"
    for bad in (0, -1, 2.5, "3"):
        call = partial(run, IMAGES, LABELS, num_classes=bad)
        yield f"from_arrays: {bad!r}", call, f"num_classes must be .*got {bad!r}"
    made = partial(data.Dataset, IMAGES, LABELS, 3, "mine")
    for mean, std in (
        ([0.0], [0.0]),
        ([np.nan], [1.0]),
        ([0.0], [np.nan]),
        ([], [1.0]),
    ):
        call = partial(made, mean, std)
        yield f"Dataset: {mean}, {std}", call, "mean, std: expected 1 numbers each"
    yield "Dataset: infinite", partial(made, [0.0], [np.inf]), "mean, std: expected"
    yield "Dataset: text", partial(made, ["a"], [1.0]), "mean must be real.*'a'"
    load = data.load
    yield "load: name", partial(load, "mnist", "train"), "digits, .*got 'mnist'"
    yield "load: split", partial(load, "digits", "valid"), "train or test, got 'valid'"
    for bad in (0, -1, 10**6, 2.5, "3"):
        call = partial(load, "digits", "test", limit=bad)
        yield f"load: {bad!r}", call, f"limit: expected 1 to 359.*got {bad!r}"
    nowhere = partial(load, "cifar10", "test", data_dir="nowhere")
    yield "load: no data", nowhere, "cifar10: expected TFDS data"
    yield "from_npz: gone", partial(data.from_npz, "gone.npz"), "got no .npz file"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        np.savez(path, images=IMAGES)
        yield "from_npz: keys", partial(data.from_npz, path), "got \\['images'\\]"
        path.write_bytes(os.urandom(100))
        yield "from_npz: broken", partial(data.from_npz, path), "got no .npz file"
    normalize = data.normalize
    for images, mean, std, says in (
        (IMAGES.astype(np.float32), [0.0], [1.0], "uint8 images.*float32"),
        (IMAGES, [0.0, 0.0], [1.0], "\\(2,\\), \\(1,\\)"),
        ("text", [0.0], [1.0], "images must be .*'text'"),
        (IMAGES, ["a"], [1.0], "mean must be .*'a'"),
        (IMAGES, [0.0], [0.0], "std must be positive and finite.*0"),
        (IMAGES, [np.nan], [1.0], "mean must be finite.*nan"),
    ):
        yield f"normalize: {says}", partial(normalize, images, mean, std), says
    augment = partial(data.augment, jax.random.key(0))
    yield (
        "augment: rank",
        partial(augment, IMAGES[0]),
        "\\[B, H, W, C\\].*\\[8, 8, 1\\]",
    )
    for bad, says in BAD_ARRAYS:
        yield f"augment: {bad!r}", partial(augment, bad), f"images must be .*{says}"
    for bad in (-1, 1.5, "2"):
        call = partial(augment, IMAGES, pad=bad)
        yield f"augment: pad {bad!r}", call, f"pad .*{bad!r}"
    yield "augment: no key", partial(data.augment, 0, IMAGES), "key must be .*got 0"
    yield "augment: none", partial(augment, IMAGES[:0], pad=1), None
