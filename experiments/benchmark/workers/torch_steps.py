"""The training step and the forward pass of a torch network."""

from collections.abc import Callable
from typing import Any

import torch  # pyrefly: ignore[missing-import]

from experiments.benchmark.workers.serve import Commands


def make_commands(
    net: Any, sequence: Callable[[], Any], batch: int, reset: Callable[[], None]
) -> Commands:
    """Return ``step``, which trains ``net``, and ``eval``, which predicts.

    Args:
        net: from the result of ``sequence`` to logits ``[T, B, classes]``.
        sequence: the input, made for each pass, which is part of the work.
        batch: B.
        reset: forgets the membranes after a pass.
    """
    labels = torch.randint(0, 10, (batch,))
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )

    def step() -> float:
        net.train()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(sequence()).mean(0), labels)
        loss.backward()
        optimizer.step()
        reset()
        return loss.item()

    def predict() -> None:
        net.eval()
        with torch.no_grad():
            net(sequence())
        reset()

    return {"step": step, "eval": predict}
