"""One trained network, evaluated with the fast convolution and with XLA's."""

import sys
from pathlib import Path

import cifar
import jax
import numpy as np
import pytest
from flax import nnx

from snnjax import conv, data, emd, models, train
from snnjax.conv import winograd

ROOT = Path(__file__).parents[3]


@pytest.mark.nightly
def test_the_fast_convolution_fires_as_xlas_does(monkeypatch):
    folder = cifar.data_dir("cifar10")
    load = lambda split, limit: data.load(  # noqa: E731
        "cifar10", split, data_dir=folder, limit=limit
    )
    # Wide enough that every 3x3 convolution but the strided ones goes by Winograd.
    model = models.sew_resnet8(10, width=64, rngs=nnx.Rngs(0))
    optimizer = train.sgd(train.one_cycle(60, 0.1), weight_decay=5e-4)
    options = dict(steps=60, optimizer=optimizer, seed=0, batch_size=32)
    model = train.fit(model, load("train", 2000), **options)
    images = load("test", 1000)

    taken = []
    convolve = winograd.convolve
    monkeypatch.setattr(
        winograd, "convolve", lambda *a, **k: taken.append(1) or convolve(*a, **k)
    )
    fast = train.evaluate(model, images)
    assert len(taken) >= 4
    train.make_eval_step.cache_clear()
    jax.clear_caches()
    module = sys.modules["snnjax.conv.conv2d"]
    xla = conv.Choice("xla", "for comparison", ("xla",))
    monkeypatch.setattr(module, "choose_forward", lambda *_: xla)
    xlas = train.evaluate(model, images)

    assert fast.accuracy > 0.15  # it has learned something
    assert abs(fast.accuracy - xlas.accuracy) * len(images) <= 1.001
    a, b = fast.counts, xlas.counts
    far = emd.layer_emd(a.spikes, b.spikes, a.observations)
    differ = sum(int(np.abs(a.spikes[k] - b.spikes[k]).sum()) for k in a.spikes)
    spikes = sum(int(b.spikes[k].sum()) for k in b.spikes)
    assert max(far.values()) <= 1e-4, f"{differ} of {spikes} spikes differ"
