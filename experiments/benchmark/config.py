"""Options of the benchmark."""

import dataclasses
import re
from pathlib import Path
from typing import Literal, get_args

from experiments.benchmark.contender import IN_OWN_PROCESS

Part = Literal["step", "eval", "memory", "compile", "lif", "conv", "roofline", "emd"]
Peer = Literal["spikingjelly", "snntorch", "spyx", "scipy", "pot"]

_NETWORK = r"sew_resnet(8|18)-w[1-9]\d*|conv3"


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Time the parts of snnjax and of other libraries."""

    only: tuple[Part, ...] = get_args(Part)
    """Parts: a training step, a prediction, a step's memory, compiling; layers of
    neurons, convolutions, a step's parts beside the machine's limits; distances."""
    against: tuple[Peer, ...] = get_args(Peer)
    """Peers; those that are not installed are left out."""
    python: tuple[str, ...] = ()
    """Interpreters of peers in other environments: spikingjelly=PATH snntorch=PATH
    spyx=PATH."""
    runs: int = 9
    """Timed runs of each, after one that is not timed; at least 7 for a median."""
    networks: tuple[str, ...] = (
        "sew_resnet18-w64",
        "sew_resnet8-w16",
        "sew_resnet8-w64",
        "conv3",
    )
    """sew_resnet8-wWIDTH, sew_resnet18-wWIDTH, or conv3: three convolutions that every
    peer can express."""
    timesteps: int = 4
    """T."""
    memory_timesteps: tuple[int, ...] = (4, 16)
    """T, of the memory tables."""
    batch: int = 32
    """Images, of 32 x 32 x 3."""
    neurons: int = 1_000_000
    """Neurons of the layers whose distance is taken."""
    observations: int = 40_000
    """T x images of those distances."""
    out: Path | None = None
    """Folder for benchmark.json and benchmark.md (default: runs/benchmark, or
    runs/benchmark-PART of some parts)."""

    def __post_init__(self):
        if not self.only:
            raise ValueError("only must name at least one part")
        for name in ("runs", "neurons", "observations", "timesteps", "batch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if any(steps < 1 for steps in self.memory_timesteps):
            raise ValueError(
                f"memory_timesteps must be at least 1, got {self.memory_timesteps}"
            )
        for network in self.networks:
            if not re.fullmatch(_NETWORK, network):
                raise ValueError(
                    "networks must be sew_resnet8-wWIDTH, sew_resnet18-wWIDTH or "
                    f"conv3, got {network!r}"
                )
        for pair in self.python:
            peer, _, path = pair.partition("=")
            if peer not in IN_OWN_PROCESS or not path:
                raise ValueError(
                    f"python must be PEER=PATH, the peer one of {IN_OWN_PROCESS}, got "
                    f"{pair!r}"
                )

    def pythons(self) -> dict[str, str]:
        """Return the interpreter of each peer with its own environment."""
        pairs = (pair.partition("=") for pair in self.python)
        # Absolute, but not resolved: a virtual environment's python is a link.
        return {peer: str(Path(path).absolute()) for peer, _, path in pairs}
