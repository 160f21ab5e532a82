"""Data larger than memory: batches of any loader give what the data set gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from calibrated import arrays, same
from flax import nnx

from snnjax import calibrate, data, layers, models, neurons, train
from snnjax.quantize import QuantSpec
from snnjax.train.feeding import EvaluationFeed

SIZE, BATCH = 70, 16


def network():
    rngs = nnx.Rngs(0)
    return models.Sequential(
        {
            "conv1": layers.QuantConv(1, 4, kernel_size=3, padding=1, rngs=rngs),
            "bn1": layers.BatchNorm(4),
            "sn1": layers.Spiking(neurons.LIF()),
            "pool1": layers.AvgPool(2),
            "flatten": layers.Flatten(),
            "fc": layers.QuantLinear(64, 10, rngs=rngs),
        },
        in_shape=(8, 8, 1),
    )


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "train", limit=SIZE)


class Shuffled:
    """Batches in the order of `data.epoch_order`; a smaller one at the end."""

    def __init__(self, dataset, kind="pairs", seed=0):
        self.dataset, self.kind, self.seed, self.passes = dataset, kind, seed, 0

    def __iter__(self):
        order = data.epoch_order(self.seed, self.passes, len(self.dataset))
        self.passes += 1
        for first in range(0, len(order), BATCH):
            yield self.batch(order[first : first + BATCH])

    def batch(self, rows):
        x, labels = self.dataset.images[rows], self.dataset.labels[rows]
        if self.kind == "mappings":
            return {"image": x, "label": labels.astype(np.int64)}
        if self.kind == "floats":
            mean, std = self.dataset.mean, self.dataset.std
            return [data.network_input(x, mean, std), jnp.asarray(labels)]
        return x, labels

    def statistics(self):
        """The source, with its statistics where it gives pixels."""
        if self.kind == "floats":
            return self
        return data.Batches(self, mean=self.dataset.mean, std=self.dataset.std)


def first_quick(names):
    """The first of the names in the default suite, the others among the slow tests."""
    first, *rest = names
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in rest)]


OPTIONS = dict(optimizer=optax.adam(1e-2), seed=0, timesteps=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", first_quick(["pairs", "mappings", "floats"]))
def test_a_run_is_that_of_the_data_set(images, kind):
    whole = train.fit(network(), images, epochs=2, batch_size=BATCH, **OPTIONS)
    read = Shuffled(images, kind).statistics()
    streamed = train.fit(network(), read, epochs=2, **OPTIONS)
    for a, b in zip(arrays(whole), arrays(streamed), strict=True):
        # Floats were normalised before the step, which rounds otherwise.
        np.testing.assert_allclose(a, b, atol=1e-5 if kind == "floats" else 0)
    read = Shuffled(images, kind).statistics()
    found = list(train.steps(network(), read, steps=6, validation=images, **OPTIONS))
    assert [p.step for p in found if p.validation is not None] == [4, 6]


def test_resumed_by_reading_what_was_done(images):
    options = OPTIONS | dict(steps=7)
    states = {}
    run = train.steps(network(), Shuffled(images).statistics(), **options)
    for progress in run:
        states[progress.step] = jax.tree.map(np.array, progress.state)
        assert progress.position is None
    for done in (2, 4, 5):
        *_, last = train.steps(
            network(), Shuffled(images).statistics(), start=states[done], **options
        )
        assert same(jax.tree.leaves(last.state), jax.tree.leaves(states[7]))


class Positioned:
    """An iterator whose position can be taken and set, as grain's."""

    def __init__(self, batches):
        self.batches, self.next = batches, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.next >= len(self.batches):
            raise StopIteration
        self.next += 1
        return self.batches[self.next - 1]

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


class Loader:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return Positioned(self.batches)


def test_resumed_at_a_position(images):
    loader = data.Batches(
        Loader(list(Shuffled(images))), mean=images.mean, std=images.std
    )
    kept = [
        (jax.tree.map(np.array, p.state), p.position)
        for p in train.steps(network(), loader, epochs=2, **OPTIONS)
    ]
    assert len(kept) == 8
    for done in (1, 4, 7, 8):
        start, position = kept[done - 1]
        state = start
        for progress in train.steps(
            network(), loader, epochs=2, start=start, position=position, **OPTIONS
        ):
            state = progress.state
        assert same(jax.tree.leaves(state), jax.tree.leaves(kept[-1][0]))
    with pytest.raises(ValueError, match="set_state"):
        train.steps(
            *(network(), [(images.images, images.labels)]),
            **(OPTIONS | dict(steps=9, start=start, position=position)),
        )


def test_batches_that_devices_do_not_divide_fill_all_groups(images):
    """On a mesh of one: places are those of the images, not of the filled batch."""
    batches = [(images.images[i : i + 9], images.labels[i : i + 9]) for i in (0, 9)]
    feed = EvaluationFeed(
        data.Batches(batches), batch_size=1, timesteps=2, groups=32, mesh=None
    )
    feed.share = 4
    places = [np.asarray(p)[np.asarray(mask)] for _, p, mask in feed]
    assert np.array_equal(np.concatenate(places), np.arange(18))
    assert np.array_equal(feed.observations, [2] * 18 + [0] * 14)


@pytest.mark.parametrize("kind", first_quick(["pairs", "floats"]))
def test_an_evaluation_is_that_of_the_data_set(images, kind):
    net, other = network(), network()
    other.bn1.bias.set_value(jnp.ones(4))
    shuffled = Shuffled(images, kind)
    batches = [
        shuffled.batch(np.arange(SIZE)[i : i + BATCH]) for i in range(0, SIZE, BATCH)
    ]
    if kind == "pairs":
        batches = data.Batches(batches, mean=images.mean, std=images.std)
    whole, read = (
        train.evaluate(
            *([net, other], x), reference=net, outputs=True, batch_size=BATCH
        )
        for x in (images, batches)
    )
    for a, b in zip(whole, read, strict=True):
        assert a.accuracy == b.accuracy
        assert a.time_w1 == b.time_w1
        assert a.counts.observations == b.counts.observations
        for x, y in zip(a.groups, b.groups, strict=True):
            assert x.observations == y.observations
            assert np.array_equal(x.spikes["sn1"], y.spikes["sn1"])
        assert (a.inputs_id == b.inputs_id) == (kind == "pairs")


@pytest.mark.slow
def test_sequences_of_different_lengths():
    draw = np.random.default_rng(0)
    x = draw.poisson(1.0, (40, 9, 6)).astype(np.int16)
    lengths, labels = draw.integers(3, 10, 40), draw.integers(0, 3, 40)
    x[np.arange(9)[None] >= lengths[:, None]] = 0
    rngs = nnx.Rngs(0)
    net = models.Sequential(
        {
            "fc1": layers.QuantLinear(6, 8, rngs=rngs),
            "bn": layers.BatchNorm(8),
            "sn": layers.Spiking(neurons.LIF()),
            "fc": layers.QuantLinear(8, 3, rngs=rngs),
        },
        in_shape=(6,),
    )
    dataset = data.from_arrays(x, labels, lengths=lengths)
    batches = [
        (x[i : i + 20], labels[i : i + 20], lengths[i : i + 20]) for i in (0, 20)
    ]
    with_large = [(x, labels, lengths), (x * 300, labels, lengths)]
    assert [b.images.dtype.name for b in data.Batches(with_large)] == ["float32"] * 2
    found = [
        train.evaluate(net, d, timesteps=9, batch_size=20) for d in (dataset, batches)
    ]
    assert found[0].accuracy == found[1].accuracy
    assert found[0].counts.observations == found[1].counts.observations == lengths.sum()
    assert np.array_equal(*(f.counts.spikes["sn"] for f in found))
    logits = np.asarray(net(x.swapaxes(0, 1).astype(np.float32), timesteps=9)[0], float)
    logits[np.arange(9)[:, None] >= lengths] = 0  # a sequence that ended is read there
    right = logits.cumsum(0).argmax(-1) == labels
    assert found[0].accuracy_by_step.tolist() == right.mean(1).tolist()
    assert len(set(right.mean(1))) > 2
    models_ = [
        calibrate.reestimate_batchnorm(net, d, timesteps=9, batch_size=20)
        for d in (dataset, batches)
    ]
    assert same(*map(arrays, models_))
    options = dict(optimizer=optax.sgd(0.1), seed=0, timesteps=9, steps=2)
    assert not same(arrays(train.fit(net, batches, **options)), arrays(net))


CALIBRATIONS = {
    "reestimate_batchnorm": lambda net, full, d, **k: calibrate.reestimate_batchnorm(
        net, d, **k
    ),
    "correct_bias": calibrate.correct_bias,
    "fire_match": calibrate.fire_match,
    "osbc": lambda net, full, d, **k: calibrate.osbc(net, d, **k),
}


@pytest.mark.parametrize("name", first_quick(CALIBRATIONS))
def test_calibration_is_that_of_the_data_set(images, name):
    full = network()
    net = calibrate.quantize(full, {"conv1": QuantSpec(bits=3, clip="mse")})
    options = dict(timesteps=2, images=40)
    method = CALIBRATIONS[name]
    expected = method(net, full, images, batch_size=BATCH, **options)
    batches = [
        (images.images[i : i + BATCH], images.labels[i : i + BATCH])
        for i in range(0, SIZE, BATCH)
    ]
    batches = data.Batches(batches, mean=images.mean, std=images.std)
    assert same(arrays(method(net, full, batches, **options)), arrays(expected))


@pytest.mark.slow
def test_bits_are_allocated_by_batches(images):
    net = network()
    options = dict(budget_kb=0.1, layers=["conv1"], bits=(2, 8), timesteps=2)
    batches = [(images.images[:BATCH], images.labels[:BATCH])]
    assert calibrate.allocate_bits(net, batches, **options) == {"conv1": 8}


X, Y = np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, int)
BAD = {
    "a generator": (lambda: ((X, Y) for _ in range(3)), "used up"),
    "a zip": (lambda: zip([X], [Y], strict=True), "used up"),
    "an array": (lambda: X, "labels"),
    "a path": (lambda: "digits.npz", "from_arrays"),
    "nothing": (list, "at least one"),
    "no labels": (lambda: [(X,)], "images, labels"),
    "one-hot": (lambda: [(X, np.eye(4, dtype=int))], "argmax"),
    "fewer labels": (lambda: [(X, Y[:3])], "each of its 4"),
    "time in front": (
        lambda: [(np.zeros((9, 4, 6), np.float32), Y)],
        "moveaxis",
    ),
    "int images": (lambda: [(X.astype(int), Y)], "uint8"),
    "no channels": (lambda: [(X[0, :, :, 0], Y)], "None"),
    "other keys": (lambda: [{"x": X, "y": Y}], "keys"),
    "growing": (lambda: [(X[:2], Y[:2]), (X, Y)], "one size"),
    "small in between": (lambda: [(X, Y), (X[:2], Y[:2]), (X, Y)], "one size"),
    "other sizes": (lambda: [(X, Y), (X[:, :4], Y)], "one shape"),
    "a label beyond": (lambda: [(X, Y), (X, Y + 12)], "num_classes"),
    "statistics of floats": (
        lambda: data.Batches([(X.astype(np.float32), Y)], mean=[0], std=[1]),
        "leave mean",
    ),
    "statistics of others": (
        lambda: data.Batches([(X, Y)], mean=[0, 0], std=[1, 1]),
        "C",
    ),
    "half of them": (lambda: data.Batches([(X, Y)], mean=[0]), "together"),
}


@pytest.mark.parametrize("case", BAD)
def test_faults_are_named(case):
    make, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        train.fit(network(), make(), steps=4, **OPTIONS)


def test_a_source_that_is_empty_the_second_time():
    class Once:
        def __init__(self):
            self.iterator = iter([(X, Y)])

        def __iter__(self):
            return (x for x in self.iterator)

    with pytest.raises(ValueError, match="new pass"):
        train.fit(network(), Once(), epochs=2, **OPTIONS)
    with pytest.raises(ValueError, match="batch_size"):
        train.fit(network(), [(X, Y)], epochs=2, batch_size=3, **OPTIONS)
    dataset = data.from_arrays(X, Y, num_classes=10)
    other = data.load("digits", "test", limit=10)
    with pytest.raises(ValueError, match="normalised"):
        train.fit(network(), [(X, Y)], epochs=2, validation=other, **OPTIONS)
    with pytest.raises(ValueError, match="batch_size"):
        train.fit(network(), dataset, epochs=2, **OPTIONS)


def test_a_batch_that_is_handed_back_keeps_its_numbers():
    made = data.Batches(
        [(np.full((4, 2, 2, 1), 128, np.uint8), np.zeros(4, int))],
        mean=[0.5],
        std=[0.2],
    )
    for again in (data.as_batches(list(made)), data.Batches(list(made))):
        [batch] = again
        np.testing.assert_array_equal(
            [batch.mean, batch.std], np.float32([[0.5], [0.2]])
        )
    with pytest.raises(ValueError, match="a Batch, which has its own"):
        list(data.Batches(list(made), mean=[0.0], std=[1.0]))
