"""Training with each loss of a teacher, on one device and on all; as JSON."""

import jax
import small_nets

from snnjax import data, distill, train

LOSSES = {
    "firing": distill.firing(),
    "sliced_w2": distill.sliced_w2(),
    "soft_cdf": distill.soft_cdf(),
    "membrane": distill.membrane(),
}


def losses(model, dataset, loss, mesh):
    run = train.steps(
        model,
        dataset,
        steps=3,
        optimizer=train.sgd(0.02),
        batch_size=16,
        seed=0,
        timesteps=2,
        teacher=network(1),
        distill=loss,
        mesh=mesh,
    )
    return [float(progress.metrics.loss[0]) for progress in run]


def network(seed):
    return small_nets.sew(seed=seed)


def main():
    jax.config.update("jax_enable_x64", True)
    images = data.load("digits", "train", limit=64)
    mesh = train.make_mesh()
    found = {"devices": jax.device_count()}
    for name, loss in LOSSES.items():
        found[name] = [losses(network(0), images, loss, m) for m in (None, mesh)]
    small_nets.tell(found)


if __name__ == "__main__":
    main()
