"""The networks, weights, images and currents that both sides of a comparison use.

Only numpy: this runs beside torch, and beside JAX in an environment without torch.
"""

import hashlib
import itertools
import zlib

import numpy as np

STEPS, NUMBER = 12, 10  # of single neurons
TIMESTEPS, BATCH, SIZE, CLASSES = 4, 2, 16, 10
NETS = ("sew_resnet18", "sew_resnet34", "sew_resnet50")
CONFIGS = [
    f"{net}-{connect}-{'decayed' if decay else 'undecayed'}"
    for net, connect, decay in itertools.product(
        NETS, ("add", "and", "iand"), (True, False)
    )
]


def parse(config: str) -> tuple[str, str, bool]:
    """Network, connect, decay_input."""
    net, connect, decay = config.split("-")
    return net, connect, decay == "decayed"


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that belong to a name: the same on both sides."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A state dict in torch's layouts, under which every layer fires."""
    state = {}
    for key, shape in shapes.items():
        x = draw(key, shape)
        if key.endswith("running_var"):
            x = 1 + 0.2 * np.tanh(x)
        elif key.endswith("running_mean"):
            x = 0.1 * x
        elif ".weight" in key and len(shape) == 1:  # BatchNorm's
            x = 1.5 + 0.1 * x
        elif key.endswith("bias") and not key.startswith("fc"):
            x = 0.8 + 0.4 * x
        elif len(shape) == 4:
            x = x * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        else:
            x = x / np.sqrt(shape[-1])
        state[key] = x
    return state


def images() -> np.ndarray:
    """[B, C, H, W], torch's layout."""
    return draw("images", (BATCH, 3, SIZE, SIZE))


def labels() -> np.ndarray:
    return np.arange(BATCH) * 3 % CLASSES


def currents(name: str) -> np.ndarray:
    """[STEPS, NUMBER]: they fire, none exactly at the threshold, a reset is enough."""
    scale = 3 if " decayed" in name else 2 if "norse" in name else 1
    return scale * np.clip(0.5 + 0.6 * draw(name, (STEPS, NUMBER)), -0.97, 0.97)


def fingerprint(spikes: np.ndarray) -> str:
    """Of spikes [T, B, H, W, C]."""
    assert set(np.unique(spikes)) <= {0, 1}
    bits = np.packbits(np.ascontiguousarray(spikes).astype(bool))
    return hashlib.sha256(bits.tobytes() + str(spikes.shape).encode()).hexdigest()[:16]


def sketch(name: str, x: np.ndarray) -> list[float]:
    """An array (in torch's layout) as its norm and four random projections.

    If it changes by e, each projection changes by about the norm of e.
    """
    flat = np.asarray(x, np.float64).ravel()
    directions = draw("sketch " + name, (4, flat.size))
    return [float(np.linalg.norm(flat)), *map(float, directions @ flat)]
