"""Each form of EMD as a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.emd_gradients.losses import (
    DRAWN,
    FEW,
    LOSSES,
    PAIRED,
    compute_targets,
    make_penalty,
)

# Without Sinkhorn, which compiles for seconds; its gradient is tested in tests/emd.
BY_NAME = {loss.name: loss for loss in (*LOSSES[:-2], FEW, PAIRED)}


def batches(scale=1.0, n=150):
    rng = np.random.default_rng(0)
    rates = rng.beta(0.5, 3, n)
    seen = rng.binomial(128, np.minimum(scale * rates, 1), (6, n)) / 128
    return {"a": jnp.asarray(seen[:, :90], jnp.float32).reshape(6, 9, 10)} | {
        "b": jnp.asarray(seen, jnp.float32)
    }


@pytest.mark.parametrize("name", BY_NAME)
def test_gradient_step_reduces_the_loss(name):
    loss = BY_NAME[name]
    target = compute_targets(loss, batches())
    both = jax.jit(jax.value_and_grad(make_penalty(loss)))
    same, much = ({k: v[0] for k, v in batches(s).items()} for s in (1.0, 2.0))
    near, _ = both(same, (1.0, target))
    far, slopes = both(much, (1.0, target))
    assert far > 2 * near >= 0
    # Neurons that fire too often: most of all slopes lower their rates.
    assert sum(float(jnp.sum(slope)) for slope in slopes.values()) > 0
    back = {k: v - 0.5 * slopes[k] for k, v in much.items()}
    assert both(back, (1.0, target))[0] < far
    assert float(both(much, (10.0, target))[0]) == pytest.approx(10 * float(far), 1e-5)


def test_sinkhorn_draws_neurons():
    assert [loss.drawn for loss in LOSSES[-2:]] == [DRAWN, DRAWN]
    target = compute_targets(FEW, batches())
    assert target["b"].shape == (DRAWN,)
    assert target["a"].shape == (90,)
    assert np.all(np.diff(target["b"]) >= 0)
    slope = jax.jit(jax.grad(make_penalty(FEW)))(
        {k: v[0] for k, v in batches(2.0).items()}, (1.0, target)
    )["b"]
    assert DRAWN / 2 < np.count_nonzero(slope) <= DRAWN
