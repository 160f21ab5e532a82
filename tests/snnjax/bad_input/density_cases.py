"""Bad input to the earth mover's distances."""

from functools import partial

import jax
import numpy as np

from snnjax import emd
from tests.snnjax.bad_input.table import (
    NAN,
    NO_ARRAY,
    NO_SIZE,
    NOT_POSITIVE,
    OBJECTS,
    OTHER_ARRAYS,
    OTHER_POSITIVES,
    OTHER_SIZES,
    allowed,
    refused,
)

RATES = np.array([0.1, 0.5, 0.9], np.float32)
COUNTS = np.array([0, 2, 4])
WITH_NAN, WITH_INF = np.array([0.1, np.nan]), np.array([np.inf, 0.1])
CLOUD = np.ones((3, 2))


def cases():
    """Yield the cases of this module."""
    yield from count_cases()
    yield from sample_cases()
    yield from density_cases()
    yield from cloud_cases()


def count_cases():
    """EMDs from spike counts."""
    observations = [*NO_SIZE, *OTHER_SIZES, (4,), (4, 0), (4, 4, 4)]
    for function in (emd.emd_from_counts, emd.ks_from_counts):
        yield from refused(
            function,
            {"x_counts": COUNTS, "y_counts": COUNTS, "observations": 4},
            x_counts=[
                *("text", None, [[1], [1, 2]]),
                *(RATES, COUNTS > 0, COUNTS[:0], COUNTS - 1, COUNTS + 1),
            ],
            y_counts=[RATES],
            observations=observations,
        )
    layers = {"sn1": COUNTS, "sn2": COUNTS}
    yield from refused(
        emd.layer_emd,
        {"x_counts": layers, "y_counts": layers, "observations": 4},
        x_counts=[COUNTS],
        observations=NO_SIZE,
    )
    call = partial(emd.layer_emd, layers, layers | {"sn2": RATES}, 4)
    yield "layer_emd: rates", call, "y_counts", RATES
    one = partial(emd.layer_emd, layers, {"sn1": COUNTS}, 4)
    yield "layer_emd: other layers", one, "layers", "sn2"
    yield "layer_emd: no layer", partial(emd.layer_emd, {}, {}, 4), "layer", []


def sample_cases():
    """EMDs between samples."""
    x = [*NO_ARRAY, WITH_NAN, RATES[:0], RATES * 1j]
    weights = [RATES[:2], RATES * NAN, ["a", "b", "c"]]
    good = {"x": RATES, "y": RATES}
    epsilon = {"epsilon": 0.1}
    for function, more in (
        (emd.wasserstein_1d, {}),
        (emd.wasserstein_p_1d, {"p": 2}),
        (emd.ott_wasserstein_1d, {}),
        (emd.sinkhorn_divergence, epsilon),
        (emd.transport_plan, epsilon),
    ):
        yield from refused(function, good | more, x=x, y=[WITH_NAN])
        if "wasserstein" in function.__name__ and "ott" not in function.__name__:
            yield from refused(function, good | more, x_weights=weights)
            for bad, why in ((RATES - 0.5, "negative"), (RATES * 0, "all zero")):
                call = partial(function, **good, **more, x_weights=bad)
                yield f"{function.__name__}: {why}", call, "x_weights", why
        if more is epsilon:
            bad = {
                "epsilon": [*NOT_POSITIVE, *OTHER_POSITIVES, None, RATES],
                "max_iterations": NO_SIZE,
            }
            yield from refused(function, good | more, **bad)
            call = partial(function, RATES, RATES**2, epsilon=1e-3, max_iterations=1)
            yield f"{function.__name__}: too few", call, "iterations", 1
    jitted = jax.jit(emd.wasserstein_1d)
    bad = {"x": [RATES[:0]], "y": [RATES[:0]], "x_weights": [RATES[:2]]}
    yield from refused(jitted, good, **bad)
    yield from refused(emd.wasserstein_1d, good, y_weights=[RATES[:2], RATES * NAN])
    many = partial(emd.transport_plan, np.zeros(20_000, np.float32), RATES, epsilon=1)
    yield "transport_plan: many", many, "samples", 16384
    for x in (*OTHER_ARRAYS, WITH_INF):
        call = partial(emd.wasserstein_1d, x, RATES)
        yield f"wasserstein_1d: {x!r}", call, "x", x
    yield from refused(emd.wasserstein_p_1d, good, p=[0.5, NAN, np.inf, "2"])


def density_cases():
    """EMDs of histograms, soft distributions, and flows."""
    p = [*NO_ARRAY, RATES * 1j]
    good = {"p": RATES, "q": RATES, "bin_width": 0.5}
    bad = [*NOT_POSITIVE, *OTHER_POSITIVES, None, RATES]
    yield from refused(emd.histogram_emd, good, p=p, bin_width=bad)
    for bad, why in (
        (RATES - 0.5, "non-negative"),
        (RATES * 0, "zero"),
        (RATES * NAN, "finite"),
    ):
        call = partial(emd.histogram_emd, bad, RATES, 0.5)
        yield f"histogram_emd: not {why}", call, "p", why
    for bad in (RATES[:2], RATES[:0], np.float32(1.0)):
        call = partial(emd.histogram_emd, bad, RATES, 0.5)
        yield f"histogram_emd: {bad.shape}", call, "bins", bad
    bad = np.ones((2, 3))
    call = partial(emd.histogram_emd, bad, np.ones((4, 3)), 0.5)
    yield "histogram_emd: axes", call, "broadcast", bad
    none = partial(emd.histogram_emd, np.ones((0, 3)), np.ones((0, 3)), 0.5)
    yield allowed("histogram_emd: none of them", none)
    rates = [*NO_ARRAY, WITH_NAN, np.array([-0.1]), np.array([1.1]), RATES[:0]]
    yield from refused(
        emd.soft_cdf,
        {"rates": RATES, "points": 4, "temperature": 0.1},
        rates=rates,
        points=NO_SIZE,
        temperature=NOT_POSITIVE,
    )
    yield from refused(
        emd.soft_cdf_distance,
        {"rates": RATES, "reference_cdf": RATES, "temperature": 0.1},
        rates=rates,
        reference_cdf=[RATES[None], RATES[:0], WITH_NAN, RATES * 4, "text"],
        temperature=[*NOT_POSITIVE, -1, np.float32(0), jax.numpy.array(-1.0)],
    )
    yield from refused(
        emd.flow,
        {"reference": RATES, "other": RATES},
        reference=[*NO_ARRAY, RATES * 1j],
        edges=[
            *(np.array([0.0]), np.array([1.0, 0.0]), np.array([0.0, NAN])),
            *(np.array([0.0, 0.5]), "ab"),
        ],
    )
    reach = partial(emd.flow, RATES * 4, RATES)
    yield "flow: beyond the edges", reach, "edges", 1.0
    for bad, why in ((WITH_NAN, "finite"), (RATES[:0], "at least one")):
        call = partial(emd.flow, bad, RATES)
        yield f"flow: {why}", call, "reference", why


def cloud_cases():
    """Sliced distances between clouds of points."""
    yield from refused(
        emd.sliced,
        {"x": CLOUD, "y": CLOUD},
        x=[
            *(RATES, CLOUD[:0], CLOUD[:, :1], CLOUD * NAN, CLOUD * 1j, OBJECTS),
            np.full((3, 2), "a"),
        ],
        directions=[np.ones((4, 3)), np.ones((0, 2)), np.full((1, 2), NAN)],
    )
    call = partial(emd.sliced, np.ones((3, 4)), np.ones((3, 4)))
    yield "sliced: no directions", call, "directions", 4
