"""Bad input to the earth mover's distances."""

from functools import partial

import numpy as np

from snnjax import emd

RATES = np.array([0.1, 0.5, 0.9], np.float32)
COUNTS = np.array([0, 2, 4])
NAN, INF = np.array([0.1, np.nan]), np.array([np.inf, 0.1])
BAD_ARRAYS = (("text", "'text'"), (None, "None"), (np.array([None]), "object"))


def cases():
    """Name, call, what the error says."""
    yield from count_cases()
    yield from sample_cases()
    yield from density_cases()


def count_cases():
    """EMDs from spike counts."""
    for name in ("emd_from_counts", "ks_from_counts"):
        run = getattr(emd, name)
        for bad, says in (
            (RATES, "x_counts must be integers, got float32"),
            (COUNTS > 0, "x_counts must be integers, got bool"),
            ("abc", "x_counts must be .*'abc'"),
            (None, "x_counts must be .*None"),
            ([[1], [1, 2]], "x_counts must be .*\\[\\[1\\], \\[1, 2\\]\\]"),
            (COUNTS[:0], "x_counts is empty"),
            (COUNTS - 1, "x_counts must lie within 0..4.*got -1..3"),
            (COUNTS + 1, "x_counts must lie within 0..4.*got 1..5"),
        ):
            yield f"emd.{name}: {bad!r:.20}", partial(run, bad, COUNTS, 4), says
        yield f"emd.{name}: y", partial(run, COUNTS, RATES, 4), "y_counts must be int"
        for bad in (0, -1, 2.5, np.nan, None, "4", True, (4,), (4, 0), (4, 4, 4)):
            says = f"observations must be .*got {bad!r}".replace("(", ".")
            says = says.replace(")", ".")
            yield f"emd.{name}: {bad!r}", partial(run, COUNTS, COUNTS, bad), says
        one = partial(run, COUNTS[:1], COUNTS[:1], 4)
        yield f"emd.{name}: one neuron", one, None
    layers = emd.layer_emd
    bad = partial(layers, {"sn1": COUNTS, "sn2": COUNTS}, {"sn1": COUNTS}, 4)
    yield "emd.layer_emd: layers", bad, "same layers.*\\['sn2'\\]"
    yield "emd.layer_emd: none", partial(layers, {}, {}, 4), "at least one"
    bad = partial(layers, {"a": COUNTS}, {"a": RATES}, 4)
    yield "emd.layer_emd: rates", bad, "y_counts must be integers"
    bad = partial(layers, COUNTS, COUNTS, 4)
    yield "emd.layer_emd: arrays", bad, "x_counts must be \\{layer: counts\\}.*got"


def sample_cases():
    """EMDs between samples."""
    runs = {
        "wasserstein_1d": emd.wasserstein_1d,
        "wasserstein_p_1d": partial(emd.wasserstein_p_1d, p=2),
        "ott_wasserstein_1d": emd.ott_wasserstein_1d,
        "sinkhorn_divergence": partial(emd.sinkhorn_divergence, epsilon=0.1),
        "transport_plan": partial(emd.transport_plan, epsilon=0.1),
    }
    for name, run in runs.items():
        name = f"emd.{name}"
        for bad, says in BAD_ARRAYS:
            says = f"x must be .*numbers, got {says}"
            yield f"{name}: {bad!r}", partial(run, bad, RATES), says
        for bad, says in ((NAN, "x has NaN or inf"), (INF, "x has NaN or inf")):
            yield f"{name}: {bad}", partial(run, bad, RATES), says
        yield f"{name}: NaN in y", partial(run, RATES, NAN), "y has NaN or inf"
        yield f"{name}: empty", partial(run, RATES[:0], RATES), "x is empty"
        bad = partial(run, RATES * 1j, RATES)
        yield f"{name}: complex", bad, "x must be real.*complex64"
    for name in ("wasserstein_1d", "wasserstein_p_1d"):
        run = partial(runs[name], RATES, RATES)
        for bad, says in (
            (RATES[:2], "x_weights must have x's shape \\(3,\\), got \\(2,\\)"),
            (RATES - 0.5, "x_weights must be non-negative and not all zero"),
            (RATES * 0, "x_weights must be non-negative and not all zero"),
            (RATES * np.nan, "x_weights has NaN"),
            (["a", "b", "c"], "x_weights must be .*numbers, got \\['a'"),
        ):
            yield f"emd.{name}: weights {bad}", partial(run, x_weights=bad), says
    for p in (0, 0.5, np.nan, np.inf, "2", None):
        bad = partial(emd.wasserstein_p_1d, RATES, RATES, p=p)
        yield f"emd.wasserstein_p_1d: p={p!r}", bad, f"p must be a finite.*got {p!r}"
    for name in ("sinkhorn_divergence", "transport_plan"):
        run = partial(getattr(emd, name), RATES, y=RATES)
        for bad in (0, -1, np.nan, np.inf, "1", None, RATES):
            says = "epsilon must be positive.*got " + str(bad)[:3].replace("[", ".")
            says = says.replace("got 1", "got '1'")
            yield f"emd.{name}: epsilon={bad!r}", partial(run, epsilon=bad), says
        for bad in (0, 2.5, "5"):
            call = partial(run, epsilon=0.1, max_iterations=bad)
            says = f"max_iterations must be .*got {bad!r}"
            yield f"emd.{name}: iterations={bad!r}", call, says
        bad = partial(
            getattr(emd, name), RATES, RATES**2, epsilon=1e-3, max_iterations=1
        )
        yield f"emd.{name}: not there", bad, "did not converge in 1 iterations"


def density_cases():
    """EMDs of histograms, soft distributions, clouds, and flows."""
    run = partial(emd.histogram_emd, bin_width=0.5)
    for bad, says in (
        *((bad, f"p must be real numbers, got {says}") for bad, says in BAD_ARRAYS),
        (RATES[:2], "equally many bins, got .*\\(2,\\).*\\(3,\\)"),
        (RATES[:0], "equally many bins"),
        (1.0, "equally many bins"),
        (RATES - 0.5, "p must have finite, non-neg"),
        (RATES * 0, "p must have finite, non-neg"),
        (RATES * np.nan, "p must have finite, non-neg"),
        (["a", "b", "c"], "p must be .*numbers, got \\['a'"),
        (RATES * 1j, "p must be real"),
    ):
        yield f"emd.histogram_emd: {bad}", partial(run, bad, RATES), says
    bad = partial(run, np.ones((2, 3)), np.ones((4, 3)))
    yield "emd.histogram_emd: axes", bad, "broadcast.*\\(2, 3\\).*\\(4, 3\\)"
    bad = partial(run, np.ones((0, 3)), np.ones((0, 3)))
    yield "emd.histogram_emd: none of them", bad, None
    for bad in (0, -1, np.nan, np.inf, "1", None, RATES):
        call = partial(emd.histogram_emd, RATES, RATES, bad)
        says = "bin_width must be positive.*got .*" + str(bad)[1:3].strip("[")
        yield f"emd.histogram_emd: width {bad!r}", call, says
    soft = partial(emd.soft_cdf, points=4, temperature=0.1)
    distance = partial(emd.soft_cdf_distance, temperature=0.1)
    for name, run in (
        ("soft_cdf", soft),
        ("soft_cdf_distance", lambda rates: distance(rates, RATES)),
    ):
        for bad, says in (
            *(
                (bad, f"rates must be .*numbers, got {says}")
                for bad, says in BAD_ARRAYS
            ),
            (NAN, "rates must lie within 0..1, got nan"),
            (np.array([-0.1]), "rates must lie within 0..1, got -0.1"),
            (np.array([1.1]), "rates must lie within 0..1, got 1.1"),
            (RATES[:0], "rates is empty"),
        ):
            yield f"emd.{name}: {bad}", partial(run, bad), says
    for bad in (0, -1, 2.5, "4", None, True):
        call = partial(soft, RATES, points=bad)
        yield f"emd.soft_cdf: {bad!r}", call, f"points must be .*got {bad!r}"
    for bad in (0, -1, np.nan, np.inf, "1", None):
        says = f"temperature must be positive.*got {bad!r}"
        call = partial(soft, RATES, temperature=bad)
        yield f"emd.soft_cdf: temperature={bad!r}", call, says
    for bad, says in (
        (RATES[None], "reference_cdf must be \\[K\\], got shape \\(1, 3\\)"),
        (RATES[:0], "reference_cdf must be \\[K\\], got shape \\(0,\\)"),
        (NAN, "reference_cdf must lie within 0..1, got nan"),
        (RATES * 4, "reference_cdf must lie within 0..1, got 0.4.* to 3.5"),
        ("text", "reference_cdf must be .*'text'"),
    ):
        yield f"emd.soft_cdf_distance: {bad}", partial(distance, RATES, bad), says
    cloud = np.ones((3, 2))
    for bad, says in (
        *((RATES, "\\[n, d\\].*\\(3,\\)"), (cloud[:0], "\\[n, d\\].*\\(0, 2\\)")),
        (cloud[:, :1], "\\[n, d\\].*\\(3, 1\\)"),
        (cloud * np.nan, "x has NaN"),
        (cloud * 1j, "x must be real"),
        (np.full((3, 2), "a"), "x must be .*numbers"),
        ("text", "\\[n, d\\].*\\(\\)"),
    ):
        yield f"emd.sliced: {bad}", partial(emd.sliced, bad, cloud), says
    for bad, says in (
        (np.ones((4, 3)), "directions must be \\[L, 2\\].*got \\(4, 3\\)"),
        (np.ones((0, 2)), "directions must be .*at least one.*\\(0, 2\\)"),
        (np.full((1, 2), np.nan), "directions .*NaN"),
    ):
        call = partial(emd.sliced, cloud, cloud, directions=bad)
        yield f"emd.sliced: directions {bad}", call, says
    call = partial(emd.sliced, np.ones((3, 4)), np.ones((3, 4)))
    yield "emd.sliced: no directions", call, "4 dimensions give directions"
    for bad, says in (
        *(
            (bad, f"reference must be .*numbers, got {says}")
            for bad, says in BAD_ARRAYS
        ),
        *((NAN, "reference must have finite"), (RATES[:0], "reference must have fin")),
        (RATES * 1j, "reference must be real"),
    ):
        yield f"emd.flow: {bad}", partial(emd.flow, bad, RATES), says
    for bad, says in (
        (np.array([0.0]), "edges must be at least two rising numbers, got"),
        (np.array([1.0, 0.0]), "edges must be at least two rising numbers, got"),
        (np.array([0.0, np.nan]), "edges must be at least two rising numbers, got"),
        (np.array([0.0, 0.5]), "edges must reach"),
        ("ab", "edges must be .*numbers, got 'ab'"),
    ):
        yield f"emd.flow: edges {bad}", partial(emd.flow, RATES, RATES, edges=bad), says
