"""What readers of NIR make of our graphs: the same logits, other ones, or a refusal.

    pip install torch torchvision snntorch spikingjelly sinabs snn-mlir nirtorch
    python tests/golden/compare_readers.py FOLDER

``FOLDER`` has graphs, ``NETWORK-FORM.nir``, and ``NETWORK.npz`` with an image and the
logits of each step, as tests/snnjax/interop/test_readers.py writes them. Prints JSON:
``{reader: {graph: answer}}``. Needs neither JAX nor snnjax.
"""

import contextlib
import copy
import io
import json
import sys
from pathlib import Path

import nir
import numpy as np
import torch


def by_snntorch(graph, image, steps):
    from snntorch.import_nir import import_from_nir

    answers = []
    for one in image.split(1):  # its Flatten flattens the batch too
        network = import_from_nir(copy.deepcopy(graph))
        state, logits = None, []
        for _ in range(steps):
            out, state = network(one, state)
            logits.append(out.reshape(1, -1))
        answers.append(torch.stack(logits))
    return torch.cat(answers, 1)


def by_spikingjelly(graph, image, steps):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    network = import_from_nir(graph)
    state, logits = None, []
    for _ in range(steps):
        out, state = network(image, state)
        logits.append(out)
    return torch.stack(logits)


def by_sinabs(graph, image, steps):
    from sinabs.nir import from_nir

    batch = len(image)
    network = from_nir(graph, batch_size=batch)
    flat = image.repeat_interleave(steps, 0)  # sinabs counts images first, then time
    found = network(flat)
    found = found[0] if isinstance(found, tuple) else found
    return found.reshape(batch, steps, -1).transpose(0, 1)


def by_snn_mlir(graph, image, steps):
    """Its own parse, by the decay and threshold that it found; it fires above."""
    import snn_mlir

    layers = list(snn_mlir.parse_graph(graph))
    states: dict[int, torch.Tensor] = {}
    logits = []
    for _ in range(steps):
        x = image
        for i, layer in enumerate(layers):
            kind = type(layer).__name__
            if hasattr(layer, "decay"):
                h = states.get(i, torch.zeros_like(x)) * layer.decay + x
                x = (h > layer.threshold).float()
                states[i] = torch.where(x > 0, torch.zeros_like(h), h)
            elif "Conv" in kind:
                x = torch.nn.functional.conv2d(
                    x,
                    torch.as_tensor(np.asarray(layer.weights)),
                    torch.as_tensor(np.asarray(layer.bias)),
                    tuple(np.ravel(layer.stride).tolist()),
                    tuple(np.ravel(layer.padding).tolist()),
                )
            elif "Pool" in kind:
                x = torch.nn.functional.avg_pool2d(
                    x, layer.kernel, layer.stride, layer.padding
                )
            elif "Flatten" in kind:
                x = x.flatten(1)
            elif hasattr(layer, "weights"):
                x = x @ torch.as_tensor(np.asarray(layer.weights)).T
                x = x + torch.as_tensor(np.asarray(layer.bias))
            else:
                raise ValueError(f"{kind} {vars(layer)}")
        logits.append(x)
    return torch.stack(logits)


READERS = {
    "snntorch": by_snntorch,
    "spikingjelly": by_spikingjelly,
    "sinabs": by_sinabs,
    "snn_mlir": by_snn_mlir,
}


def main() -> None:
    folder, answers = Path(sys.argv[1]), {}
    for reader, run in READERS.items():
        answers[reader] = {}
        for path in sorted(folder.glob("*.nir")):
            with np.load(folder / f"{path.stem.split('-')[0]}.npz") as arrays:
                image, logits = arrays["image"], arrays["logits"]
            try:
                with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
                    graph = nir.read(path)
                    found = run(graph, torch.from_numpy(image), len(logits)).numpy()
            except Exception as error:
                text = f"refuses: {type(error).__name__}: {error}"
                answers[reader][path.stem] = text.splitlines()[0][:120]
                continue
            apart = float(np.abs(found - logits).max())
            answers[reader][path.stem] = (
                "right" if apart < 1e-4 else f"wrong: {apart:.2g}"
            )
    print(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
