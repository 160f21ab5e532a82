"""Cost of a network on event-driven hardware: synaptic operations and memory.

A spike costs one accumulation for every synapse it travels along. That number is taken
from measured spike counts and true fan-out: a neuron at the border of an image has
fewer synapses, one in front of a stride reaches only some positions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from snnjax import _checks

if TYPE_CHECKING:  # models need Flax, and this module does not
    import snnjax.models.connections


def fan_out(synapse: "snnjax.models.connections.Synapse") -> np.ndarray:
    """Synapses that leave a neuron, by its position: int64 ``[H, W]``, or ``[]``.

    Padding has no neurons, and an input that no window covers has no synapse.
    """
    reached = np.ones((), np.int64)
    for axis in range(len(synapse.kernel_size)):
        start = np.arange(synapse.out_shape[axis]) * synapse.strides[axis]
        start = start - synapse.padding[axis][0]
        offset = np.arange(synapse.in_shape[axis])[:, None] - start
        apart = synapse.dilation[axis] if synapse.dilation else 1
        inside = (offset >= 0) & (offset < synapse.kernel_size[axis] * apart)
        inside &= offset % apart == 0
        reached = np.multiply.outer(reached, inside.sum(axis=1))
    return np.asarray(reached * (synapse.out_shape[-1] // synapse.groups))


def synaptic_operations(
    synapses: "Sequence[snnjax.models.connections.Synapse]",
    counts: Mapping[str, ArrayLike],
    images: int,
) -> dict[str, float]:
    r"""Accumulations of one image, for each layer that is fed by spikes.

    .. math:: \frac{1}{N} \sum_i k_i \, \mathrm{fan\_out}(i)

    for :math:`k_i` spikes of neuron :math:`i` over :math:`N` images and all time steps.
    A block output of 2 (two spikes added) counts twice. A linear layer behind average
    pooling costs one accumulation for each class and spike: the mean is folded into its
    weights. The layer that sees the image has no spikes and is left out (see
    `multiply_accumulates`), unless ``counts`` has those of the ``"input"``: events, or
    an image that was encoded.

    Args:
        synapses: ``model.synapses()``.
        counts: spikes of each layer ``[H, W, C]``, perhaps of the input; AND and IAND
            networks need those of the block outputs too, and networks with max-pooling
            those behind it: ``train.evaluate(..., outputs=True).spikes``.
        images: number of images behind the counts.

    Returns:
        ``{layer: operations per image}``.

    Raises:
        ValueError: images below 1, counts missing or of another shape.

    Source: NeuroBench's effective ACs (Yik et al., 2025), for integer inputs. Differs
    from it in: weights that are zero count as well, and a whole layer is not called MAC
    because one input is 2.
    """
    _checks.require_whole("images", images, 1)
    operations = {}
    for synapse in synapses:
        if synapse.reads_input and not counts.keys() & synapse.sources:
            continue
        spikes = sum(_spikes(synapse, name, counts) for name in synapse.summed)
        reached = fan_out(synapse)
        # Beyond 64 bits, use Python's integers.
        most = int(np.max(spikes, initial=0)) * int(reached.sum())
        kind = np.int64 if most < 2**62 else object
        made = np.sum(np.asarray(spikes).astype(kind) * reached.astype(kind))
        operations[synapse.name] = float(made / images)
    return operations


def _spikes(
    synapse: "snnjax.models.connections.Synapse",
    name: str,
    counts: Mapping[str, ArrayLike],
) -> np.ndarray:
    """Counts of a source, summed over channels (and positions in front of pooling)."""
    if name not in counts:
        raise ValueError(
            f"{synapse.name} is fed by {name}, which is not among the counts: "
            f"{sorted(counts)}"
            + ("; train.evaluate(..., outputs=True) counts it" * synapse.reads_outputs)
        )
    spikes = np.asarray(_checks.require_real(name, counts[name]))
    # A linear layer has only channels: positions are pooled in front of it.
    shape = spikes.shape if synapse.kernel_size else spikes.shape[-1:]
    if shape != synapse.in_shape:
        raise ValueError(
            f"{name} must have the shape of {synapse.name}'s input, "
            f"{synapse.in_shape}, got {shape}; was synapses() given the "
            "image's size?"
        )
    if not np.issubdtype(spikes.dtype, np.integer):
        raise ValueError(f"{name} must be integers, spike counts, got {spikes.dtype}")
    if spikes.size and spikes.min() < 0:
        raise ValueError(f"{name} must be at least 0, spike counts, got {spikes.min()}")
    spikes = spikes.astype(np.int64)
    return np.asarray(spikes.sum(axis=-1 if synapse.kernel_size else None))


def memory_traffic(
    synapses: "Sequence[snnjax.models.connections.Synapse]",
    counts: Mapping[str, ArrayLike],
    images: int,
    *,
    timesteps: int,
    weight_bits: Mapping[str, ArrayLike] | ArrayLike = 32,
    membrane_bits: Mapping[str, ArrayLike] | ArrayLike = 32,
) -> dict[str, float]:
    r"""Bits that one image moves between memory and arithmetic, for each layer.

    .. math:: N_{op} (b_w + 2 b_v) + 2\, T\, n\, b_v

    An accumulation reads its weight, and reads and writes a membrane; at each of T
    steps each of the n neurons that the layer feeds is read and written once more, to
    leak, fire and reset. No cache is assumed: it is what an event-driven core with its
    memory beside it moves. Layers without spikes in front of them (the first, where it
    sees an image) are left out, as in `synaptic_operations`.

    Args:
        synapses: ``model.synapses()``.
        counts: as of `synaptic_operations`.
        images: number of images behind the counts.
        timesteps: T.
        weight_bits: of each layer's weights, or of all.
        membrane_bits: of the membranes that each layer feeds, or of all.

    Returns:
        ``{layer: bits per image}``.

    Raises:
        ValueError: as `synaptic_operations`; timesteps below 1, a layer without bits.

    Source: Yan, Bai and Wong, `Reconsidering the energy efficiency of spiking neural
    networks <https://arxiv.org/abs/2409.08290>`_, 2024, for what is counted. Differs
    from it in: spikes are not counted as traffic, and there is no reuse in a cache.
    """
    _checks.require_whole("timesteps", timesteps, 1)
    operations = synaptic_operations(synapses, counts, images)
    traffic = {}
    for synapse in synapses:
        if synapse.name not in operations:
            continue
        bits = []
        for name, given in (
            ("weight_bits", weight_bits),
            ("membrane_bits", membrane_bits),
        ):
            value: Any = given
            if isinstance(given, Mapping):
                value = given.get(synapse.name, np.nan)
            message = f"{name} of {synapse.name} must be from 0, got {value!r}"
            bits.append(_number(value, message))
        weight, membrane = bits
        neurons = synapse.neurons
        if neurons is None:
            neurons = int(np.prod(synapse.out_shape))
        updates = 2 * membrane * timesteps * neurons
        moved = operations[synapse.name] * (weight + 2 * membrane) + updates
        traffic[synapse.name] = float(moved)
    return traffic


def energy(
    accumulations: ArrayLike,
    multiply_accumulates: ArrayLike = 0.0,
    traffic_bits: ArrayLike = 0.0,
    *,
    pj_accumulation: ArrayLike = 0.9,
    pj_multiply_accumulate: ArrayLike = 4.6,
    pj_bit: ArrayLike = 10 / 64,
) -> float:
    r"""Energy of arithmetic, and of memory where its traffic is given, in picojoules.

    .. math:: E = N_{AC} E_{AC} + N_{MAC} E_{MAC} + N_{bit} E_{bit}

    The defaults are those of most SNN papers: float32 in 45 nm at 0.9 V. Most
    leave out memory traffic, which costs more on most chips.

    Args:
        accumulations: of a pass, the sum of `synaptic_operations`.
        multiply_accumulates: of the layers that see numbers and not spikes.
        traffic_bits: bits to and from memory, the sum of `memory_traffic`.
        pj_accumulation: picojoules of an addition.
        pj_multiply_accumulate: picojoules of a multiplication (3.7) and an addition.
        pj_bit: picojoules of a bit, by default of 64 bits from 8 KB of SRAM (10); of
            32 KB they are 20, of 1 MB 100, of DRAM 1300 to 2600.

    Raises:
        ValueError: one that is no finite number from 0, or energy that is infinite.

    Source: Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9.

    >>> energy(1000.0, 100)
    1360.0
    """
    given = {
        "accumulations": accumulations,
        "multiply_accumulates": multiply_accumulates,
        "traffic_bits": traffic_bits,
        "pj_accumulation": pj_accumulation,
        "pj_multiply_accumulate": pj_multiply_accumulate,
        "pj_bit": pj_bit,
    }
    ac, mac, bits, pj_ac, pj_mac, pj_each = (
        _number(value, f"{name} must be a finite number from 0, got {value!r}")
        for name, value in given.items()
    )
    try:
        total = float(ac * pj_ac + mac * pj_mac + bits * pj_each)
    except OverflowError:  # of Python's integers
        total = np.inf
    if total == np.inf:
        raise ValueError("accumulations times their energies must be finite, got inf")
    return total


def _number(value: ArrayLike, message: str) -> int | float:
    """Python's, which does not overflow; ValueError unless finite and from 0."""
    known = hasattr(value, "dtype") and not isinstance(value, jax.core.Tracer)
    if known and not np.ndim(value):
        value = np.asarray(value).item()
    if not isinstance(value, (int, float)) or not 0 <= value < np.inf:
        raise ValueError(message)
    return value


def multiply_accumulates(
    synapses: "Sequence[snnjax.models.connections.Synapse]",
) -> dict[str, int]:
    """Multiplications of one pass through each layer without any sparsity.

    Times T, this is what a dense accelerator does; for the layer that sees the image,
    also what an event-driven one does (once, if a still image is convolved once).
    """
    return {
        s.name: int(np.sum(fan_out(s))) * s.in_shape[-1] if s.macs is None else s.macs
        for s in synapses
    }


def membrane_updates(potentials: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Changes of membrane potentials in one image, for each layer.

    A neuron's first step counts, and each step after which its potential is another. An
    event-driven chip writes the membrane as often.

    Args:
        potentials: ``{layer: [T, B, neurons...]}`` after each step, of
            `layers.record_membranes`.

    Returns:
        ``{layer: updates of an image}``.

    Raises:
        ValueError: potentials without time and batch.

    Source: NeuroBench's membrane updates (Yik et al., 2025).

    >>> membrane_updates({"sn1": np.array([[[0.5]], [[0.5]], [[0.0]]])})
    {'sn1': 2.0}
    """
    found = {}
    for name, each in potentials.items():
        v = np.asarray(each)
        if v.ndim < 2 or not v.shape[0] or not v.shape[1]:
            raise ValueError(
                f"potentials must be [T, B, ...], got shape {v.shape} of {name!r}"
            )
        changed = v[0].size + np.count_nonzero(v[1:] != v[:-1])
        found[name] = float(changed / v.shape[1])
    return found


def memory_bits(
    sizes: Iterable[tuple[ArrayLike, ArrayLike]],
) -> int:
    """Memory of ``(number of values, bits of each)``, in bits.

    Raises:
        ValueError: what is no number, negative or not finite.

    >>> memory_bits([(1000, 2), (10, 32)])
    2320
    """
    total = 0
    for number, bits in sizes:
        message = (
            "sizes must be (number of values, bits of each), from 0 and finite, got "
            f"({number!r}, {bits!r})"
        )
        try:
            total += _number(number, message) * _number(bits, message)
            round(total)
        except OverflowError:  # of floats
            raise ValueError(f"{message}: the sum is infinite") from None
    return round(total)
