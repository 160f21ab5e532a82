"""The neurons against a numpy float64 loop and its derivative, worked out by hand."""

import dataclasses
import functools
import gc
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import neurons, surrogate
from snnjax.layers import Spiking
from snnjax.neurons import IF, LIF, PLIF
from snnjax.quantize import QuantSpec

# A row for each neuron, its numbers exact in float32.
ROWS = {
    "lif": LIF(),
    "lif to -1/4": LIF(v_reset=-0.25, v_threshold=0.75),
    "lif soft": LIF(v_reset=None),
    "lif slow, to 1/8": LIF(tau=5.0, v_reset=0.125),
    "lif undecayed": LIF(tau=3.0, v_reset=-0.25, decay_input=False),
    "lif undecayed, soft": LIF(tau=1.25, v_reset=None, decay_input=False),
    "plif": PLIF(tau=3.0),
    "plif soft": PLIF(tau=1.5, v_reset=None, decay_input=False),
    "if": IF(),
    "if to -1/4": IF(v_reset=-0.25),
    "if soft": IF(v_reset=None, v_threshold=1.25),
}


@pytest.fixture(params=ROWS)
def row(request):
    return ROWS[request.param]


@functools.partial(jax.jit, static_argnames="membrane_site")
def run(neuron, x, v_init=None, membrane_quantizer=None, membrane_site="post_reset"):
    return neuron(
        x,
        v_init=v_init,
        membrane_quantizer=membrane_quantizer,
        membrane_site=membrane_site,
    )


def numbers(neuron):
    fields = dict(tau=None, decay_input=False) | {
        field.name: getattr(neuron, field.name) for field in dataclasses.fields(neuron)
    }
    if "w" in fields:
        fields["tau"] = 1 + np.exp(-np.float64(fields["w"]))
    names = ("tau", "v_threshold", "v_reset")
    return *(None if fields[n] is None else float(fields[n]) for n in names), fields


def simulate(neuron, x, v=None, quantize=None, site=None):
    """Charge, fire, reset: spikes, potentials they came from, the last potential."""
    tau, threshold, reset, fields = numbers(neuron)
    rest = 0.0 if reset is None else reset
    v = np.full(x.shape[1:], rest) if v is None else v
    spikes, potentials = [], []
    for current in x:
        if tau is None:
            h = v + current
        elif fields["decay_input"]:
            h = v + (current - (v - rest)) / tau
        else:
            h = v - (v - rest) / tau + current
        h = quantize(h) if site == "pre_fire" else h
        s = h >= threshold
        v = h - s * threshold if reset is None else np.where(s, reset, h)
        v = quantize(v) if site == "post_reset" else v
        spikes.append(s)
        potentials.append(h)
    return np.array(spikes), np.array(potentials), v


def currents(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.7, 1.0, shape)


@pytest.mark.parametrize("shape", [(4, 3, 5, 6, 2), (12, 7)])
def test_equals_the_loop(row, x64, shape):
    x = currents(*shape)
    v0 = currents(7, seed=1) if shape == (12, 7) else None
    expected, _, v_expected = simulate(row, x, v0)
    spikes, v = run(row, x, v0)
    assert spikes.dtype == v.dtype == jnp.float64
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_allclose(v, v_expected, 1e-12, 1e-14)
    assert 0.01 < expected.mean() < 0.99


@pytest.mark.parametrize("decay_input", [True, False])
def test_first_spike_under_constant_input(x64, decay_input):
    """H_n = X (1 - 2^-n): it fires at step n from X = 2, 4/3, 8/7, 16/15 on."""
    least = 1 / (1 - 2.0 ** -np.arange(1, 5)) / (1 if decay_input else 2)
    x = np.stack([least * (1 - 1e-12), least * (1 + 1e-12)])
    spikes, _ = run(LIF(decay_input=decay_input), np.stack([x] * 4))
    first = np.where(spikes.any(axis=0), np.argmax(spikes, axis=0), 4)
    np.testing.assert_array_equal(first, [[1, 2, 3, 4], [0, 1, 2, 3]])


def test_a_tie_fires():
    below = np.nextafter(np.float32(1), np.float32(0))
    assert run(IF(), jnp.array([[1.0, below]]))[0].tolist() == [[1, 0]]
    assert run(LIF(), jnp.array([[2.0, 2 * below]]))[0].tolist() == [[1, 0]]


def in_pieces(run, x):
    """Run ``x`` in pieces of 1, 4 and all other steps, handing the state on."""
    spikes, v = [], None
    for piece in jnp.split(x, (1, 5)):
        part, v = run(piece, v)
        spikes.append(part)
    return jnp.concatenate(spikes), v


@pytest.mark.parametrize("how", ["traced", "constant", "eager"])
def test_in_chunks_equals_whole_bit_for_bit(row, how):
    """Unrolled or scanned, with one step or many, whatever the compiler makes of it."""
    x = jnp.asarray(currents(16, 6, 33), jnp.float32)
    run = {
        "traced": functools.partial(run_traced, row),
        "constant": jax.jit(lambda x, v: row(x, v_init=v)),
        "eager": lambda x, v: row(x, v_init=v),
    }[how]
    if how == "eager":
        x = x[:8]  # longer is a scan, which is compiled and rounds otherwise
    whole, v_whole = run(x, None)
    spikes, v = in_pieces(run, x)
    np.testing.assert_array_equal(spikes, whole)
    np.testing.assert_array_equal(v, v_whole)


@jax.jit
def run_traced(neuron, x, v):
    return neuron(x, v_init=v)


@functools.cache
def run_with_gradient(most):
    """The compiled neuron and its gradient, to be traced with ``UNROLLED = most``."""

    def loss(x, neuron):
        spikes, v = neuron(x)
        return (x * spikes).sum(), (spikes, v)

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.slow
def test_unrolled_equals_scanned_bit_for_bit(row, monkeypatch):
    x = jnp.asarray(currents(4, 6, 33), jnp.float32)
    gradients, results = [], []
    for most in (0, 4):
        monkeypatch.setattr(sys.modules["snnjax.neurons.step"], "UNROLLED", most)
        assert ("scan[" in str(jax.make_jaxpr(row)(x[:, :0]))) == (most == 0)
        gradient, result = run_with_gradient(most)(x, row)
        gradients.append(gradient)
        results.append(result)
    for scanned, unrolled in zip(*results, strict=True):
        np.testing.assert_array_equal(scanned, unrolled)
    np.testing.assert_allclose(*gradients, 1e-4, 1e-5)


def backpropagate(neuron, x, v0, by_spikes, by_v):
    """The gradients of sum(by_spikes * S) + sum(by_v * V_T), backwards through time."""
    tau, threshold, reset, fields = numbers(neuron)
    rest = 0.0 if reset is None else reset
    spikes, potentials, _ = simulate(neuron, x, v0)
    kept = potentials - spikes * threshold  # V_1 ... V_T
    if reset is not None:
        kept = np.where(spikes, reset, potentials)
    before = np.concatenate([v0[None], kept])
    by_x, by_tau, by_threshold, by_reset = np.zeros_like(x), 0.0, 0.0, 0.0
    for t in reversed(range(len(x))):
        s, h = spikes[t], potentials[t]
        by_s = by_spikes[t]
        if not fields["detach_reset"]:
            by_s = by_s + by_v * (-threshold if reset is None else reset - h)
        slope = 1 / (1 + (np.pi * (h - threshold)) ** 2)  # atan at alpha 2
        by_h = by_v * (1 if reset is None else 1 - s) + by_s * slope
        by_threshold -= np.sum(by_s * slope + (by_v * s if reset is None else 0))
        by_reset += np.sum(by_v * s)
        by_x[t], by_v = by_h, by_h
        if tau is not None:
            driven = x[t] if fields["decay_input"] else 0
            by_x[t] = by_h / tau if fields["decay_input"] else by_h
            by_tau -= np.sum(by_h * (driven - (before[t] - rest))) / tau**2
            by_reset += np.sum(by_h) / tau
            by_v = by_h * (1 - 1 / tau)
    by_w = None if tau is None else by_tau * (1 - tau)
    by_numbers = dict(tau=by_tau, w=by_w, v_threshold=by_threshold, v_reset=by_reset)
    return by_x, by_v, by_numbers


@jax.jit
def gradients(neuron, x, v0, by_spikes, by_v):
    def loss(neuron, x, v0):
        spikes, v = neuron(x, v_init=v0)
        return (by_spikes * spikes).sum() + (by_v * v).sum()

    return jax.grad(loss, argnums=(0, 1, 2))(neuron, x, v0)


@pytest.mark.slow
@pytest.mark.parametrize("detach", [True, False])
def test_gradients_by_hand(row, x64, detach):
    neuron = dataclasses.replace(row, detach_reset=detach, alpha=2.0)
    x, v0 = currents(3, 4, 5), currents(4, 5, seed=1)
    by_spikes, by_v = currents(3, 4, 5, seed=2), currents(4, 5, seed=3)
    expected = backpropagate(neuron, x, v0, by_spikes, by_v)
    neuron = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), neuron)
    by_neuron, *got = gradients(neuron, x, v0, by_spikes, by_v)
    for by_input, by_hand in zip(got, expected[:2], strict=True):
        np.testing.assert_allclose(by_input, by_hand, 1e-9, 1e-12)
    for name, by_hand in expected[2].items():
        if name in vars(neuron) and getattr(neuron, name) is not None:
            np.testing.assert_allclose(getattr(by_neuron, name), by_hand, 1e-9)
    assert by_neuron.alpha == 0


def test_surrogate_and_its_slope_are_the_ones_given():
    x = jnp.array([[0.4], [1.1]])  # the first lies 0.6 below the threshold

    def gradient(**fields):
        return jax.grad(lambda x: IF(**fields)(x)[0][0].sum())(x).ravel()

    got = gradient(surrogate=surrogate.triangular, alpha=0.5)
    np.testing.assert_allclose(got, [0.5 - 0.25 * 0.6, 0], 1e-6)
    got = gradient(surrogate=surrogate.triangular)
    np.testing.assert_allclose(got, [1 - 0.6, 0], 1e-6)
    got = gradient(alpha=8.0)
    np.testing.assert_allclose(got, [4 / (1 + (np.pi * 4 * 0.6) ** 2), 0], 1e-5)


def test_an_infinite_current_fires_and_is_reset(row):
    x = jnp.array([[jnp.inf, 3e38, 0.0], [0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    spikes, v = run(row, x)
    assert jnp.isfinite(spikes).all()
    assert spikes[0].tolist() == [1, 1, 0]
    if row.v_reset is not None:  # a soft reset leaves what is above the threshold
        assert jnp.isfinite(v).all()
        np.testing.assert_array_equal(spikes[:, 0], spikes[:, 1])
        gradient = jax.grad(lambda x: run(row, x)[1].sum())(x)
        assert jnp.isfinite(gradient).all()


@jax.tree_util.register_static
class Quarters:
    def __call__(self, v):
        return jnp.round(4 * v) / 4


@pytest.mark.parametrize("site", neurons.SITES)
def test_membrane_quantizer_in_the_loop(row, x64, site):
    x = currents(9, 3, 5)
    got = run(row, x, membrane_quantizer=Quarters(), membrane_site=site)
    spikes, _, v = simulate(row, x, None, lambda v: np.round(4 * v) / 4, site)
    np.testing.assert_array_equal(got[0], spikes)
    np.testing.assert_allclose(got[1], v, 1e-12, 1e-14)
    assert (v != simulate(row, x)[2]).any()


def test_site_decides_whether_the_threshold_moves():
    two_bits = QuantSpec(bits=2, clip=1.0, signed=False, grid="mid_tread")
    x = jnp.array([[0.82, 0.84, 0.99, 1.0]])  # 5/6 parts the levels 2/3 and 1
    spikes, v = run(IF(), x, membrane_quantizer=two_bits)
    assert spikes.tolist() == [[0, 0, 0, 1]]
    np.testing.assert_allclose(v, [2 / 3, 1, 1, 0], 1e-6)
    spikes, v = run(IF(), x, None, two_bits, membrane_site="pre_fire")
    assert spikes.tolist() == [[0, 1, 1, 1]]
    np.testing.assert_allclose(v, [2 / 3, 0, 0, 0], 1e-6)


def test_a_grid_that_ends_at_the_threshold_still_fires():
    # In float32 0.23 / 7 * 7 < 0.23: a top level so computed would never fire.
    for bits in range(2, 9):
        spec = QuantSpec(bits=bits, clip=0.23, signed=False, grid="mid_tread")
        x = jnp.full((2, 3), 9.0)
        neuron = LIF(v_threshold=0.23)
        assert (run(neuron, x, None, spec, membrane_site="pre_fire")[0] == 1).all()


def test_state_stays_float32_under_bfloat16():
    # In bfloat16 the sum would stall at 0.5, where half a unit is already 2^-9.
    spikes, v = run(IF(), jnp.full((600, 2), 2.0**-9, jnp.bfloat16))
    assert (spikes.dtype, v.dtype) == (jnp.bfloat16, jnp.float32)
    assert jnp.argmax(spikes, axis=0).tolist() == [511, 511]
    np.testing.assert_array_equal(v, (600 - 512) * 2.0**-9)
    x = jnp.ones((3, 2), jnp.bfloat16)
    assert jax.grad(lambda x: run(LIF(), x)[1].sum())(x).dtype == jnp.bfloat16


def test_dataclass_is_the_function_with_its_numbers_as_leaves(row):
    x = jnp.asarray(currents(4, 3, 5), jnp.float32)
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    functions = {LIF: neurons.lif, IF: neurons.if_, PLIF: neurons.plif}
    function = functions[type(row)]
    for got, expected in zip(row(x), function(x, **fields), strict=True):
        np.testing.assert_array_equal(got, expected)
    expected = [row.w] if isinstance(row, PLIF) else []
    expected += [n for n in numbers(row)[len(expected) : 3] if n is not None]
    np.testing.assert_array_equal(jax.tree.leaves(row), expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(row)} == {np.dtype("float32")}


def test_a_loop_of_ones_own_equals_the_neuron(row, x64):
    x = jnp.asarray(currents(4, 3, 5))
    tau, v_threshold, v_reset, fields = numbers(row)
    step = functools.partial(
        neurons.step,
        tau=tau,
        v_threshold=v_threshold,
        v_reset=v_reset,
        decay_input=fields["decay_input"],
    )
    rest = jnp.full((3, 5), v_reset or 0.0)
    _, spikes = jax.jit(lambda x: jax.lax.scan(step, rest, x))(x)
    np.testing.assert_array_equal(spikes, simulate(row, np.asarray(x))[0])


def test_numbers_are_swept_without_recompiling():
    x = currents(5, 3, 4).astype(np.float32)
    swept = [LIF(tau=t, v_threshold=t / 3, v_reset=t / 8 - 0.5) for t in (1.5, 2.0, 4)]
    compiled = jax.jit(lambda neuron, x: neuron(x)[0])
    singly = [compiled(neuron, x) for neuron in swept]
    assert compiled._cache_size() == 1
    expected = [simulate(neuron, x.astype(float))[0] for neuron in swept]
    np.testing.assert_array_equal(np.stack(singly), np.stack(expected))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *swept)
    mapped = jax.vmap(compiled, in_axes=(0, None))(stacked, x)
    np.testing.assert_array_equal(mapped, np.stack(expected))
    mapped = jax.vmap(lambda tau: neurons.lif(x, tau=tau)[0])(jnp.array([1.5, 4.0]))
    expected = [simulate(LIF(tau=tau), x.astype(float))[0] for tau in (1.5, 4.0)]
    np.testing.assert_array_equal(mapped, np.stack(expected))


@pytest.mark.slow
def test_plif_starts_at_its_tau_and_learns():
    neuron = PLIF(tau=3.0)
    np.testing.assert_allclose(neuron.tau, 3.0, 1e-6)
    x = jnp.asarray(currents(5, 40), jnp.float32)
    for got, expected in zip(neuron(x), neurons.lif(x, tau=neuron.tau), strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(neuron(x), neurons.plif(x, tau=3.0), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert jax.grad(lambda n: n(x)[1].sum())(neuron).w != 0
    w = jnp.linspace(-1, 1, 40)  # a time constant for each neuron
    assert jax.grad(lambda w: neurons.plif(x, w=w)[1].sum())(w).shape == (40,)
    extreme = jax.grad(lambda w: neurons.plif(x, w=w)[1].sum())(jnp.full(40, -100.0))
    np.testing.assert_array_equal(extreme, 0)
    for extreme in (-100.0, 20.0):

        def last(w, v):
            spec = QuantSpec("mint", bits=4)
            return neurons.plif(v, w=w, membrane_quantizer=spec)[1].sum()

        assert all(map(jnp.isfinite, jax.value_and_grad(last)(extreme, x)))


def test_jax_may_put_anything_where_numbers_were(row):
    mask = jax.tree.map(lambda _: True, row)
    assert all(leaf is True for leaf in jax.tree.leaves(mask))
    assert jax.tree.structure(mask) == jax.tree.structure(row)
    path, _ = jax.tree_util.tree_flatten_with_path(row)[0][0]
    assert jax.tree_util.keystr(path) in (".tau", ".w", ".v_threshold")


@pytest.mark.slow
def test_what_a_function_closes_over_may_change():
    x = currents(5, 40)

    class Holder:
        def quantizer(self, v):
            return jnp.round(v / self.step) * self.step

        def surrogate(self, x):
            return surrogate.atan(x, self.slope)

    holder = Holder()
    by_closure = lambda v: holder.quantizer(v)  # noqa: E731
    for holder.step, holder.slope in ((0.25, 1.0), (0.5, 10.0)):
        steps = jax.tree_util.Partial(lambda s, v: jnp.round(v / s) * s, holder.step)
        expected = neurons.lif(x, membrane_quantizer=steps)[1]
        for function in (holder.quantizer, by_closure):
            run_now = functools.partial(neurons.lif, membrane_quantizer=function)
            for call in (run_now, jax.jit(lambda x, call=run_now: call(x))):
                np.testing.assert_array_equal(call(x)[1], expected)
        slopes = [
            jax.grad(lambda x, o=options: neurons.lif(x, **o)[0].sum())(x)
            for options in (
                dict(surrogate=holder.surrogate),
                dict(alpha=holder.slope),
            )
        ]
        np.testing.assert_array_equal(*slopes)


def test_the_gradient_reaches_what_a_function_closes_over():
    x = jnp.asarray(currents(5, 40))

    class Holder:
        def quantizer(self, v):
            return v * self.scale

        def loss(self, scale):
            self.scale = scale
            return neurons.lif(x, membrane_quantizer=self.quantizer)[1].sum()

    holder = Holder()
    before = holder.loss(0.5)
    slope = jax.grad(holder.loss)(0.5)
    assert slope != 0
    holder.scale = 0.5  # the gradient has left its tracer there
    assert holder.loss(0.5) == before


@pytest.mark.slow
def test_what_a_function_closes_over_is_let_go():
    x, alive = currents(5, 40), weakref.WeakSet()

    class Box:
        scale = 0.5

    def call():
        box = Box()
        alive.add(box)
        jax.grad(
            lambda x: neurons.lif(x, membrane_quantizer=lambda v: v * box.scale)[
                1
            ].sum()
        )(jnp.asarray(x))

    for _ in range(3):
        call()
    gc.collect()
    assert len(alive) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uniform", "lsq", "mint"])
def test_a_membrane_is_quantized_as_if_its_image_were_alone(method):
    x = currents(5, 8, 16)
    spec = QuantSpec(method, bits=2)
    together = neurons.lif(x, membrane_quantizer=spec)[0]
    alone = neurons.lif(x[:, :1], membrane_quantizer=spec)[0]
    np.testing.assert_array_equal(together[:, :1], alone)
    layer = Spiking(LIF(), quant=spec)
    np.testing.assert_array_equal(together, layer(jnp.asarray(x, jnp.float32)))
    _, first = neurons.step(
        jnp.zeros((8, 16)), jnp.asarray(x[0]), tau=2.0, membrane_quantizer=spec
    )
    np.testing.assert_array_equal(first, together[0])


def test_an_infinite_membrane_is_reset_whatever_the_gradient_takes():
    x = jnp.array([[jnp.inf], [2.5], [2.5]])
    one, other = (neurons.lif(x, detach_reset=detach) for detach in (True, False))
    for got, expected in zip(other, one, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert one[0].sum() == 3


def test_tau_and_w_are_not_both_given():
    with pytest.raises(ValueError, match="tau and w are one number"):
        PLIF(tau=5.0, w=0.0)
    with pytest.raises(ValueError, match="w=None"):
        dataclasses.replace(PLIF(tau=3.0), tau=5.0)
    assert dataclasses.replace(PLIF(), tau=5.0, w=None) == PLIF(tau=5.0)


def test_a_bundles_numbers_are_its_own():
    tau = np.full(3, 2.0, np.float32)
    neuron = neurons.LIF(tau=tau)
    tau[:] = 5
    np.testing.assert_array_equal(neuron.tau, 2)


@pytest.mark.parametrize(
    "tau",
    [3, 3.0, np.float64(3), np.array(3), jnp.asarray(3), jnp.asarray(3.0)],
    ids=str,
)
def test_every_way_to_write_tau_is_one_program(tau):
    traced = []

    @jax.jit
    def run(neuron, x):
        traced.append(1)
        return neuron(x)

    for one in (neurons.LIF(tau=2.0), neurons.LIF(tau=tau)):
        run(one, jnp.ones((2, 3)))
    assert len(traced) == 1
