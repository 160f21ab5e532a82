import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from calibrated import Net
from flax import nnx

from snnjax import data, distill, emd, firing, layers, models, neurons, train

LOSSES = (
    distill.paired_rates,
    distill.membrane,
    distill.sorted_w2,
    distill.soft_cdf,
    distill.sliced_w2,
    distill.firing,
)


def recordings(dtype=np.float64, seed=0):
    """Trains and potentials of two layers, of a student and its teacher."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (4, 3, 2, 2, 5), "b": (4, 3, 6)}

    def make():
        return {name: rng.random(shape).astype(dtype) for name, shape in shapes.items()}

    return make(), make()


def as_trees(x):
    return {name: jnp.asarray(v) for name, v in x.items()}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_equal_recordings_are_at_distance_zero(loss):
    student, _ = map(as_trees, recordings(np.float32))
    value, slope = jax.value_and_grad(loss)(student, student)
    assert float(value) == 0
    assert all(float(jnp.abs(g).max()) == 0 for g in slope.values())


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_gradients_are_those_of_finite_differences(loss, x64):
    student, teacher = map(as_trees, recordings())
    slope = jax.grad(loss)(student, teacher)
    rng = np.random.default_rng(1)
    for name in student:
        along = jnp.asarray(rng.standard_normal(student[name].shape))
        ahead, behind = (
            loss(student | {name: student[name] + h * along}, teacher)
            for h in (1e-6, -1e-6)
        )
        numeric = (ahead - behind) / 2e-6
        exact = jnp.vdot(slope[name], along)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-9)


def test_logits_by_hand_and_by_finite_differences(x64):
    rng = np.random.default_rng(0)
    s, t = rng.standard_normal((2, 4, 3, 5))
    p, q = (np.exp(x.mean(0) / 2) for x in (t, s))
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    expected = 4 * np.mean(np.sum(p * np.log(p / q), axis=-1))
    np.testing.assert_allclose(distill.logits(s, t), expected, rtol=1e-12)
    along = rng.standard_normal(s.shape)
    numeric = (
        distill.logits(s + 1e-6 * along, t) - distill.logits(s - 1e-6 * along, t)
    ) / 2e-6
    exact = np.vdot(jax.grad(distill.logits)(jnp.asarray(s), t), along)
    np.testing.assert_allclose(exact, numeric, rtol=1e-7)
    assert float(distill.logits(s, s)) == 0


def test_distances_by_numpy():
    student, teacher = recordings()
    expected = {"paired": 0.0, "sorted": 0.0}
    for name, s in student.items():
        rs, rt = s.mean(0), teacher[name].mean(0)
        expected["paired"] += np.mean((rs - rt) ** 2) / rt.var() / 2
        ms, mt = rs.mean(0).ravel(), rt.mean(0).ravel()
        apart = np.mean((np.sort(ms) - np.sort(mt)) ** 2)
        expected["sorted"] += apart / max(mt.var(), 1e-4) / 2
    assert float(distill.paired_rates(student, teacher)) == pytest.approx(
        expected["paired"], rel=1e-5
    )
    assert float(distill.sorted_w2(student, teacher)) == pytest.approx(
        expected["sorted"], rel=1e-5
    )
    total = distill.firing(student, teacher, weight=2.0, paired=3.0, distribution=0.5)
    by_hand = 2 * (3 * expected["paired"] + 0.5 * expected["sorted"])
    assert float(total) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_silent_and_saturated_layers_give_finite_numbers(loss, value):
    teacher = {"a": jnp.full((4, 2, 3, 3, 2), value)}
    for level in (0.0, 0.5, 1.0):
        student = {"a": jnp.full((4, 2, 3, 3, 2), level)}
        found, slope = jax.value_and_grad(loss)(student, teacher)
        assert np.isfinite(found)
        assert np.isfinite(slope["a"]).all()


def test_sorted_distances_let_neurons_swap_and_paired_ones_do_not():
    teacher = {"a": jnp.asarray(np.random.default_rng(0).random((4, 8, 6)))}
    student = {"a": teacher["a"][..., ::-1]}
    assert float(distill.sorted_w2(student, teacher)) == pytest.approx(0, abs=1e-9)
    assert float(distill.paired_rates(student, teacher)) > 0.1


def test_the_rate_regulariser_needs_no_teacher():
    spikes = {"a": jnp.full((4, 2, 3), 0.25), "b": jnp.full((4, 2, 5), 0.5)}
    assert float(distill.rate_regulariser(spikes)) == pytest.approx(0.0625 / 2)


def test_numbers_of_a_loss_are_traced():
    traces = []

    @jax.jit
    def measure(loss, student, teacher):
        traces.append(0)
        return loss(student, teacher)

    student, teacher = map(as_trees, recordings(np.float32))
    values = [
        float(measure(distill.firing(weight=w), student, teacher)) for w in (1.0, 2.0)
    ]
    assert values[1] == pytest.approx(2 * values[0], rel=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: distill.firing(weight=-1.0), "weight"),
        (lambda: distill.firing(wait=1.0), "weight"),
        (lambda: distill.sliced_w2(directions=0), "directions"),
        (lambda: distill.paired_rates({"a": jnp.ones((2, 1, 3))}), "teacher"),
        (
            lambda: distill.paired_rates(
                {"a": jnp.ones((2, 1, 3))}, {"b": jnp.ones((2, 1, 3))}
            ),
            "layers",
        ),
        (
            lambda: distill.paired_rates(
                {"a": jnp.ones((2, 1, 3))}, {"a": jnp.ones((2, 2, 3))}
            ),
            "shape",
        ),
        (lambda: distill.as_loss(3), "distill"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises(ValueError, match=name):
        call()


def network(seed):
    return Net(seed=seed, channels=1)


def residual(seed, **options):
    return models.sew_resnet8(width=2, in_channels=1, rngs=nnx.Rngs(seed), **options)


@functools.cache
def digits(number):
    return data.load("digits", "train", limit=number)


def fit(student, **options):
    return train.fit(
        student,
        digits(64),
        steps=options.pop("steps", 2),
        optimizer=options.pop("optimizer", optax.sgd(0.05)),
        batch_size=16,
        seed=0,
        **options,
    )


def weights(model):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(model, nnx.Param))]


@pytest.mark.nightly
def test_the_teacher_stays_and_moves_the_student():
    student, teacher = network(0), network(1)
    before = weights(teacher)
    plain, taught = fit(student), fit(student, teacher=teacher)
    assert all(map(np.array_equal, before, weights(teacher)))
    pairs = zip(weights(plain), weights(taught), strict=True)
    apart = [np.abs(a - b).max() for a, b in pairs]
    assert max(apart) > 1e-5
    # Of weight 0 it is plain training.
    none = fit(student, teacher=teacher, distill=distill.firing(weight=0.0))
    for a, b in zip(weights(plain), weights(none), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_loop_of_ones_own_takes_the_same_step():
    student, teacher = network(0), network(1)
    loss = distill.membrane(weight=0.5)
    expected = fit(student, steps=1, teacher=teacher, distill=loss)
    model = nnx.clone(student)
    model.train()
    batch = data.train_batches(data.epoch_order(0, 0, 64), 16)[0]
    images = data.network_input(
        digits(64).images[batch], digits(64).mean, digits(64).std
    )
    labels = jnp.asarray(digits(64).labels[batch])

    def total(model, teacher):
        seen = distill.record(model, images, membranes=True)
        taught = distill.record(teacher, images, membranes=True)
        return train.cross_entropy(seen.logits, labels) + loss(seen, taught)

    optimizer = nnx.Optimizer(model, optax.sgd(0.05), wrt=nnx.Param)
    grads = nnx.jit(nnx.grad(total))(model, teacher)
    optimizer.update(model, grads)
    for a, b in zip(weights(model), weights(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", ["block"])
def test_remat_changes_nothing(remat):
    teacher = residual(1)
    loss = distill.membrane(weight=0.5)
    plain = fit(residual(0), teacher=teacher, distill=loss)
    remade = fit(residual(0, remat=remat), teacher=teacher, distill=loss)
    for a, b in zip(weights(plain), weights(remade), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_networks_side_by_side_learn_as_alone():
    students, teacher = [network(0), network(2)], network(1)
    together = fit(students, teacher=teacher)
    for student, found in zip(students, together, strict=True):
        alone = fit(student, teacher=teacher)
        for a, b in zip(weights(alone), weights(found), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def masked(trains, mask, logits=None):
    """A recording of sequences of different lengths."""
    layers = as_trees(trains)
    logits = jnp.zeros((4, 3, 2)) if logits is None else logits
    return distill.Recording(logits, layers, layers, None, mask)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_steps_behind_the_end_do_not_count(loss):
    mask = jnp.arange(4)[:, None] < jnp.array([4, 1, 2])
    student, teacher = recordings(np.float32)
    logits = jax.random.normal(jax.random.key(0), (2, 4, 3, 2))
    found = []
    for garbage in (0, 1e3):
        pair = [
            masked(
                {
                    k: np.where(mask.reshape(4, 3, *[1] * (x.ndim - 2)), x, garbage)
                    for k, x in trains.items()
                },
                mask,
                jnp.where(mask[..., None], y, garbage),
            )
            for trains, y in zip((student, teacher), logits, strict=True)
        ]
        found.append(float(loss(*pair)))
    assert found[0] == found[1] > 0
    whole = jnp.ones_like(mask)
    every = [masked(x, m) for x in (student, teacher) for m in (whole, None)]
    np.testing.assert_allclose(loss(every[0], every[2]), loss(every[1], every[3]), 1e-5)


def test_rates_are_those_of_each_sequence_alone():
    lengths = [4, 1, 2]
    mask = jnp.arange(4)[:, None] < jnp.array(lengths)
    pair = recordings(np.float32)
    student, teacher = (
        {
            name: np.stack([x[:n, b].mean(0) for b, n in enumerate(lengths)])
            for name, x in trains.items()
        }
        for trains in pair
    )
    expected = np.mean(
        [np.mean((student[k] - teacher[k]) ** 2) / np.var(teacher[k]) for k in student]
    )
    found = distill.paired_rates(*(masked(x, mask) for x in pair))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_teacher_of_sequences_of_different_lengths():
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, 7, 24)
    x, labels = draw.poisson(1.0, (24, 6, 5)), draw.integers(0, 3, 24)
    dataset = data.from_arrays(x, labels, lengths=lengths)

    def network(seed):
        rngs = nnx.Rngs(seed)
        return models.Sequential(
            {
                "fc1": layers.QuantLinear(5, 8, rngs=rngs),
                "sn": layers.Spiking(neurons.LIF(v_threshold=0.5)),
                "fc": layers.QuantLinear(8, 3, rngs=rngs),
            },
            in_shape=(5,),
        )

    options = dict(optimizer=optax.sgd(0.1), batch_size=12, seed=0, steps=2)
    options |= dict(timesteps=6, teacher=network(1))
    trained = train.fit(network(0), dataset, **options)
    alone = train.fit(network(0), dataset, **(options | dict(teacher=None)))
    moved = jnp.abs(trained.fc1.kernel.get_value() - alone.fc1.kernel.get_value())
    assert float(moved.max()) > 1e-4

    def own(student, teacher):
        return jnp.mean(student.logits - teacher.logits)

    with pytest.raises(ValueError, match="takes_mask"):
        train.fit(network(0), dataset, distill=own, **options)
    own.takes_mask = True
    train.fit(network(0), dataset, distill=own, **options)


def test_counts_stand_in_for_a_teacher(x64, mixed_dtypes):
    """By numpy: the rates of the batch against the counted ones, paired and sorted."""
    rng = np.random.default_rng(0)
    spikes = {"a": rng.integers(0, 2, (4, 3, 2, 5)), "b": rng.integers(0, 2, (4, 3, 6))}
    counted = {name: rng.integers(0, 41, x.shape[2:]) for name, x in spikes.items()}
    loss = distill.match_counts(
        firing.FiringCounts(counted, 40), weight=3.0, paired=2.0, distribution=0.5
    )
    expected = 0.0
    for name, x in spikes.items():
        r, rho = x.mean((0, 1)).ravel(), counted[name].ravel() / 40
        apart = np.mean((r - rho) ** 2)
        ordered = np.mean((np.sort(r) - np.sort(rho)) ** 2)
        expected += 3 * (2 * apart + 0.5 * ordered) / rho.var() / 2
    found = loss({name: x.astype(np.float64) for name, x in spikes.items()}, None)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="layers and neurons of the network"):
        loss({"a": spikes["a"]}, None)


@pytest.mark.nightly
@pytest.mark.usefixtures("mixed_dtypes")
def test_counts_train_a_network_without_its_teacher():
    teacher, student = Net(seed=0, norm=False), Net(seed=1, norm=False)
    images = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 2), np.uint8)
    labels = np.zeros(64, int)
    dataset = data.Dataset(images, labels, 10, "noise", np.zeros(2), np.ones(2))
    counts = train.evaluate(teacher, dataset).counts
    loss = distill.match_counts(counts, weight=10.0)

    def distance(model):
        found = distill.record(model, dataset.images / np.float32(255))
        return float(loss(found, None))

    options = dict(optimizer=optax.adam(3e-3), batch_size=32, seed=0, steps=60)
    trained = train.fit(student, dataset, distill=loss, **options)
    assert distance(trained) < 0.7 * distance(student)


def test_a_weight_may_be_a_schedule_of_the_step():
    student, teacher = map(as_trees, recordings(np.float32))
    loss = distill.paired_rates(weight=optax.linear_schedule(0.0, 2.0, 10))
    plain = distill.paired_rates(student, teacher)
    for step, factor in ((0, 0.0), (5, 1.0), (20, 2.0)):
        assert float(loss(student, teacher, step)) == pytest.approx(factor * plain)
    with pytest.raises(ValueError, match="step must be given: weight"):
        loss(student, teacher)


def test_counted_rates_of_different_lengths_are_matched_by_themselves():
    """A step counts alike in counts and in batches, whatever its sequence's length."""
    rng = np.random.default_rng(0)
    lengths = np.where(np.arange(8) % 2, 40, 5)
    rates = np.where(np.arange(8) % 2, 0.1, 0.6)
    spikes = (rng.random((40, 8, 6)) < rates[:, None]).astype(np.float32)
    mask = np.arange(40)[:, None] < lengths
    kept = np.where(mask[..., None], spikes, 0).sum((0, 1)).astype(np.int32)
    counts = firing.FiringCounts({"a": kept}, int(mask.sum()))
    student = distill.Recording(
        jnp.zeros((40, 8, 2)), {"a": jnp.asarray(spikes)}, {}, mask=jnp.asarray(mask)
    )
    assert float(distill.match_counts(counts)(student, None)) < 1e-10


def test_silent_and_saturated_neurons_feel_the_whole_pull():
    rng = np.random.default_rng(0)
    s, t = (rng.integers(0, 2, (4, 8, 6)).astype(np.float32) for _ in range(2))
    s[..., :2], s[..., 2] = 0, 1

    def exact(s):
        found, wanted = (x.mean((0, 1)) for x in (s, jnp.asarray(t)))
        cdf = functools.partial(emd.soft_cdf, points=32, temperature=0.02)
        spread = jnp.sqrt(jnp.maximum(jnp.var(wanted), 1e-4))
        return jnp.mean(jnp.square(cdf(found) - cdf(wanted))) / spread

    found = jax.grad(lambda s: distill.soft_cdf({"a": s}, {"a": jnp.asarray(t)}))(
        jnp.asarray(s)
    )
    np.testing.assert_allclose(found, jax.grad(exact)(jnp.asarray(s)), rtol=1e-4)


def test_directions_are_those_of_any_dtype(x64):
    student, teacher = recordings(np.float32)
    wide = [
        {k: jnp.asarray(v, jnp.float64) for k, v in x.items()}
        for x in (student, teacher)
    ]
    narrow = distill.sliced_w2(as_trees(student), as_trees(teacher))
    np.testing.assert_allclose(distill.sliced_w2(*wide), narrow, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -2.0, np.nan])
def test_a_temperature_divides(temperature):
    student, teacher = (jnp.ones((2, 3, 4)) for _ in range(2))
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        distill.logits(temperature=temperature)
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        distill.logits(student, teacher, temperature=temperature)


def test_logits_of_other_shapes_are_refused():
    for s, t in (((3, 4), (3, 4)), ((2, 3, 4), (2, 1, 4))):
        with pytest.raises(ValueError, match="logits"):
            distill.logits(jnp.ones(s), jnp.ones(t))


def own(student, teacher):
    return jnp.mean(jnp.square(student.logits - teacher.logits))


def test_losses_add():
    ours, theirs = (
        distill.record(network(seed), digits(8).images[..., :1] / 255, membranes=True)
        for seed in (0, 1)
    )
    faded = distill.membrane(weight=optax.linear_schedule(0.0, 2.0, 4))
    parts = [distill.paired_rates(weight=3.0), faded, own]
    total = parts[0] + parts[1] + parts[2]
    assert total.needs_membranes
    assert not total.takes_mask
    assert (parts[0] + faded).takes_mask
    expected = 3 * distill.paired_rates(ours, theirs) + distill.membrane(ours, theirs)
    expected += own(ours, theirs)
    np.testing.assert_allclose(total(ours, theirs, step=2), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="step must be given"):
        total(ours, theirs)
    with pytest.raises(ValueError, match="distill must be a function"):
        parts[0] + 3


@pytest.mark.slow
def test_a_sum_of_losses_trains_as_its_function():
    teacher = network(1)
    total = distill.paired_rates(weight=3.0) + distill.membrane(weight=0.5)

    def by_hand(student, taught):
        first = 3.0 * distill.paired_rates(student, taught)
        return first + 0.5 * distill.membrane(student, taught)

    by_hand.needs_membranes = True
    one, other = (
        weights(fit(network(0), teacher=teacher, distill=loss))
        for loss in (total, by_hand)
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_partial_is_the_loss_with_its_numbers():
    loss = distill.loss.as_loss(functools.partial(distill.membrane, weight=2.0))
    assert loss.needs_membranes
    assert loss.takes_mask
    assert float(loss.numbers["weight"]) == 2
