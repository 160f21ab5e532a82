"""Arrays of one size, so that a compiled function meets arbitrary values only."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

SIZE = 64
NORMAL = np.finfo(np.float32).tiny
TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

# What breaks formulas: signed zero, subnormal, tied, huge and tiny beside each other.
ODD = (0.0, -0.0, 1e-45, -1e-40, 1e-38, 1e-30, -1e-30, 1.0, -1.0, 0.5, 1e30, -1e30)


@st.composite
def arrays(draw, limit=1e30, size=SIZE, least=None, scaled=True):
    """float32 [size]: drawn numbers, odd ones, ties, and random ones of one scale."""
    least = -limit if least is None else least
    number = st.floats(np.float32(least).item(), np.float32(limit).item(), width=32)
    odd = st.sampled_from([x for x in ODD if least <= x <= limit])
    picked = draw(st.lists(odd | number, min_size=4, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-8, 8)) if scaled else limit / 2
    rest = rng.normal(size=size) * scale
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    values = np.where(rng.random(size) < share, rng.choice(picked, size), rest)
    values[:4] = picked[: min(4, size)]
    return np.float32(np.clip(values, least, limit))


def flushed(x):
    """In float64, with the subnormal numbers that the device may take for 0 as 0."""
    x = np.asarray(x, np.float64)
    return np.where(np.abs(x) < NORMAL, 0, x)
