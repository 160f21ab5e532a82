"""Bad input to what counts spikes, to cost, and to the order of batches."""

from functools import partial

import numpy as np

from snnjax import cost, data, firing, spiketrain
from snnjax.models import connections
from tests.snnjax.bad_input.table import (
    NAN,
    NO_ARRAY,
    NO_SIZE,
    OTHER_SIZES,
    allowed,
    refused,
)

RATES = np.array([0.1, 0.5, 0.9], np.float32)
COUNTS = np.array([0, 2, 4])
TRAIN = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
MADE = firing.FiringCounts({"sn1": COUNTS, "sn2": COUNTS}, 4)
OTHER = firing.FiringCounts({"sn1": COUNTS}, 4)


def cases():
    """Yield the cases of this module."""
    yield from train_cases()
    yield from total_cases()
    yield from comparison_cases()
    yield from cost_cases()
    yield from batch_cases()


def train_cases():
    """Distances in time."""
    x = [*NO_ARRAY, np.array([[None]])]
    x += [TRAIN[:0], 1, TRAIN * 2, TRAIN * NAN, TRAIN * 1j]
    number = [-1, NAN, "1", RATES]
    for function, options in (
        (spiketrain.isi, {}),
        (spiketrain.spike, {}),
        (spiketrain.van_rossum, {"tau": 2.0}),
        (spiketrain.victor_purpura, {"cost": 1.0}),
        (spiketrain.time_wasserstein, {"unmatched": 1.0}),
    ):
        good = {"x": TRAIN, "y": TRAIN, **options}
        bad = dict.fromkeys(options, number)
        yield from refused(function, good, **bad)
        for value in x:
            name = f"{function.__name__}: {value!r:.40}"
            yield name, partial(function, value, value, **options), "x", value
        call = partial(function, TRAIN, TRAIN[:, :1], **options)
        yield f"{function.__name__}: shapes", call, "trains", TRAIN[:, :1]
    yield from refused(spiketrain.latency, {}, x=x)
    bad = {"x": x, "mask": [np.ones(3)]}
    yield from refused(spiketrain.latency_total, {"x": TRAIN}, **bad)
    call = partial(spiketrain.latency_total, TRAIN[:, 0])
    yield "latency_total: rank", call, "spikes", TRAIN[:, 0]


def total_cases():
    """Sums of spikes."""
    spikes, group = np.ones((2, 3, 4), np.float32), np.zeros(3, int)
    bad = [*NO_ARRAY, spikes[0, 0], spikes * 1j, spikes / 2]
    mask = [np.ones(2), ["a", "b", "c"]]
    yield from refused(firing.total, {"spikes": spikes}, spikes=bad, mask=mask)
    yield from refused(
        firing.total_by_group,
        {"spikes": spikes, "group": group, "groups": 1},
        spikes=bad,
        group=[group[:2], np.ones(3, np.float32)],
        groups=NO_SIZE,
    )
    good = {"spikes": {"sn1": COUNTS}, "observations": 4}
    yield from refused(
        firing.FiringCounts,
        good,
        spikes=[COUNTS, [1, 2]],
        observations=[*NO_SIZE, *OTHER_SIZES[:-1]],
    )
    yield allowed("FiringCounts: lists are added", add_lists)


def add_lists():
    """Add counts given as lists, which must not be joined."""
    a, b = (firing.FiringCounts({"sn1": x}, 4) for x in ([0, 4], [4, 4]))
    assert (a + b).spikes["sn1"].tolist() == [4, 8]


def comparison_cases():
    """Two recordings compared."""
    shorter = firing.FiringCounts({"sn1": COUNTS[:2], "sn2": COUNTS}, 4)
    for name in ("paired_shift", "mean_shift", "kolmogorov_smirnov", "report"):
        compare = getattr(firing, name)
        for case, reference, other, word, value in (
            ("layers", MADE, OTHER, "layers", "sn2"),
            ("shapes", MADE, shorter, "neurons", "sn1"),
            ("no layers", firing.FiringCounts({}, 4), None, "layers", "no"),
            ("rates", firing.FiringCounts({"sn1": RATES}, 4), None, "sn1", RATES),
            ("dicts", MADE.spikes, OTHER.spikes, "FiringCounts", "sn1"),
            (
                "empty",
                firing.FiringCounts({"sn1": COUNTS[:0]}, 4),
                None,
                "neurons",
                "sn1",
            ),
        ):
            call = partial(compare, reference, other or reference)
            yield f"firing.{name}: {case}", call, word, value
    none = partial(firing.summary, firing.FiringCounts({}, 4))
    yield "summary: no layers", none, "layers", "no"
    yield from refused(
        firing.report, {"reference": MADE, "other": MADE}, method=["pot"]
    )
    yield "FiringCounts: other layers", lambda: MADE + OTHER, "layers", "sn2"
    yield "FiringCounts: sum with 0", lambda: MADE + 0, "FiringCounts", 0
    beyond = firing.FiringCounts(MADE.spikes, 2)
    for name, call in (
        ("summary", partial(firing.summary, beyond)),
        ("paired_shift", partial(firing.paired_shift, beyond, beyond)),
        ("report", partial(firing.report, MADE, beyond)),
    ):
        yield f"{name}: more spikes than observations", call, "sn1", COUNTS


def cost_cases():
    """Operations and memory."""
    synapse = connections.Synapse("fc", ("sn1",), "add", (), (), (), (3,), (10,))
    good = {"synapses": [synapse], "counts": {"sn1": COUNTS}, "images": 4}
    yield from refused(cost.synaptic_operations, good, images=[*NO_SIZE, NAN])
    for counts, word, value in (
        ({"sn2": COUNTS}, "sn1", "sn2"),
        ({"sn1": COUNTS[:2]}, "sn1", COUNTS[:2]),
        ({"sn1": RATES}, "sn1", RATES),
        ({"sn1": "text"}, "sn1", "text"),
        ({"sn1": COUNTS - 1}, "sn1", -1),
    ):
        call = partial(cost.synaptic_operations, [synapse], counts, 4)
        yield f"synaptic_operations: {counts}", call, word, value
    pair, square = ((1, 1), (1, 1), ((0, 0), (0, 0))), (1, 3, 1)
    conv = connections.Synapse("conv", ("sn1",), "add", *pair, square, square)
    call = partial(cost.synaptic_operations, [conv], {"sn1": COUNTS[None]}, 4)
    yield "synaptic_operations: an axis is missing", call, "sn1", COUNTS[None]
    sizes = [(-1, 2), (2, -1), (np.inf, 2), ("a", 2), (2, None)]
    yield from refused(cost.memory_bits, {}, sizes=[[pair] for pair in sizes])


def batch_cases():
    """Orders and batches."""
    order = np.arange(5, dtype=np.int32)
    good = {"seed": 0, "epoch": 0, "n": 5}
    number = [-1, 0.5, "1"]
    yield from refused(data.epoch_order, good, seed=number, epoch=number, n=[0, 2.5])
    good = {"order": order, "batch_size": 2}
    yield from refused(data.train_batches, good, batch_size=[*NO_SIZE, 6, None])
    none = partial(data.train_batches, order[:0], 1)
    yield "train_batches: no images", none, "batch_size", 1
    good = {"n": 3, "batch_size": 2}
    yield from refused(data.eval_batches, good, n=[0, 2.5], batch_size=[*NO_SIZE, None])
    seed = np.random.SeedSequence(0)
    yield from refused(data.permutation, {"seed": seed}, n=[-1])
