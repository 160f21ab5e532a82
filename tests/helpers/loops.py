"""Training loops as users write them."""

import jax.numpy as jnp
from flax import nnx

from snnjax import data, train


def nnx_loop(model, train_set, optimizer, epochs, batch_size=32):
    """As the README has it."""
    model.train()
    optimizer = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
    metrics = nnx.MultiMetric(
        loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy()
    )

    @nnx.jit
    def train_step(model, optimizer, metrics, images, labels):
        compute = nnx.value_and_grad(train.loss_fn, has_aux=True)
        (loss, logits), gradients = compute(model, images, labels)
        metrics.update(loss=loss, logits=logits, labels=labels)
        optimizer.update(model, gradients)

    images = data.network_input(train_set.images, train_set.mean, train_set.std)
    labels = jnp.asarray(train_set.labels)
    for epoch in range(epochs):
        order = data.epoch_order(0, epoch, len(train_set))
        for batch in data.train_batches(order, batch_size):
            train_step(model, optimizer, metrics, images[batch], labels[batch])
    model.eval()
    return metrics.compute()
