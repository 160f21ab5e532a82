"""Bad input to what counts spikes: trains, firing, cost; and to data."""

from functools import partial

import numpy as np

from snnjax import cost, data, firing, spiketrain

RATES = np.array([0.1, 0.5, 0.9], np.float32)
COUNTS = np.array([0, 2, 4])
TRAIN = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
BAD_ARRAYS = (("text", "'text'"), (None, "None"), (np.array([None]), "object"))
MADE = firing.FiringCounts({"sn1": COUNTS, "sn2": COUNTS}, 4)
OTHER = firing.FiringCounts({"sn1": COUNTS}, 4)


def cases():
    """Name, call, what the error says."""
    yield from train_cases()
    yield from firing_cases()
    yield from cost_cases()
    yield from batch_cases()


def train_cases():
    """Distances in time."""
    pairs = {
        "isi": spiketrain.isi,
        "spike": spiketrain.spike,
        "van_rossum": partial(spiketrain.van_rossum, tau=2.0),
        "victor_purpura": partial(spiketrain.victor_purpura, cost=1.0),
        "time_wasserstein": spiketrain.time_wasserstein,
    }
    some = {name: lambda x, run=run: run(x, x) for name, run in pairs.items()}
    for name in ("latency", "latency_total"):
        some[name] = getattr(spiketrain, name)
    for name, run in some.items():
        for bad, says in (
            ("text", "x must be .*got 'text'"),
            (None, "x must be .*got None"),
            (np.array([[None]]), "x must be .*got object"),
            (TRAIN[:0], "T at least 1.*\\(0, 2\\)"),
            (1, "T at least 1.*\\(\\)"),
            (TRAIN * 2, "x must be 0 and 1, got 0 to 2"),
            (TRAIN * np.nan, "x must be 0 and 1, got nan"),
            (TRAIN * 1j, "x must be .*complex128"),
        ):
            yield f"spiketrain.{name}: {bad}", partial(run, bad), says
    for name, run in pairs.items():
        bad = partial(run, TRAIN, TRAIN[:, :1])
        yield f"spiketrain.{name}: shapes", bad, "\\(4, 2\\) and \\(4, 1\\)"
    for name, argument in (
        *(("van_rossum", "tau"), ("victor_purpura", "cost")),
        ("time_wasserstein", "unmatched"),
    ):
        run = partial(getattr(spiketrain, name), TRAIN, TRAIN)
        for bad in (-1, np.nan, "1", RATES):
            says = f"{argument} must be .*" + ("shape" if bad is RATES else f"{bad}")
            call = partial(run, **{argument: bad})
            yield f"spiketrain.{name}: {argument}={bad}", call, says
    bad = partial(spiketrain.latency_total, TRAIN[:, 0])
    yield "spiketrain.latency_total: rank", bad, "\\[T, B, ...\\], got shape \\(4,\\)"
    bad = partial(spiketrain.latency_total, TRAIN, np.ones(3))
    yield "spiketrain.latency_total: mask", bad, "mask must be .*\\(2,\\).*\\(3,\\)"


def _lists_are_added():
    """And not joined, which made twice the neurons of them."""
    a, b = (firing.FiringCounts({"sn1": x}, 4) for x in ([0, 4], [4, 4]))
    assert (a + b).spikes["sn1"].tolist() == [4, 8]


def firing_cases():
    """Spike counts and what compares them."""
    spikes = np.ones((2, 3, 4), np.float32)
    group = np.zeros(3, int)
    for name, run in (
        ("total", firing.total),
        ("total_by_group", lambda x: firing.total_by_group(x, group, 1)),
    ):
        for bad, says in (
            *(
                (bad, f"spikes must be .*numbers, got {says}")
                for bad, says in BAD_ARRAYS
            ),
            (spikes[0, 0], "\\[T, B, ...\\].*shape.? \\(4,\\)"),
            (spikes * 1j, "spikes must be real.*complex64"),
            (spikes / 2, "spikes must be whole numbers from 0"),
        ):
            yield f"firing.{name}: {bad!r:.20}", partial(run, bad), says
    yield (
        "firing.total: mask",
        partial(firing.total, spikes, np.ones(2)),
        "mask must be \\[B\\] = \\(3,\\), got shape \\(2,\\)",
    )
    yield (
        "firing.total: mask of text",
        partial(firing.total, spikes, ["a", "b", "c"]),
        "mask must be .*numbers, got \\['a'",
    )
    yield "firing.FiringCounts: lists are added", _lists_are_added, None
    run = partial(firing.total_by_group, spikes)
    yield "firing.total_by_group: group", partial(run, group[:2], 1), "\\(2,\\)"
    yield (
        "firing.total_by_group: floats",
        partial(run, np.ones(3, np.float32), 1),
        "group must be integers, got float32",
    )
    for bad in (0, -1, 1.5, "2"):
        says = f"groups must be .*got {bad!r}"
        yield f"firing.total_by_group: {bad!r}", partial(run, group, bad), says
    for bad in (0, -1, 2.5, np.nan, None, "4"):
        call = partial(firing.FiringCounts, {"sn1": COUNTS}, bad)
        yield f"FiringCounts: {bad!r}", call, f"observations must be .*got {bad!r}"
    for name in ("paired_shift", "mean_shift", "kolmogorov_smirnov", "report"):
        compare = getattr(firing, name)
        bad = partial(compare, MADE, OTHER)
        yield f"firing.{name}: layers", bad, "same layers.*different: \\['sn2'\\]"
        shape = firing.FiringCounts({"sn1": COUNTS[:2], "sn2": COUNTS}, 4)
        yield f"firing.{name}: shapes", partial(compare, MADE, shape), "\\['sn1'\\]"
        none = firing.FiringCounts({}, 4)
        yield f"firing.{name}: none", partial(compare, none, none), "no layers"
        rates = firing.FiringCounts({"sn1": RATES}, 4)
        bad = partial(compare, rates, rates)
        yield f"firing.{name}: rates", bad, "must be integers, got float32"
        bad = partial(compare, MADE.spikes, OTHER.spikes)
        yield f"firing.{name}: dicts", bad, "must be FiringCounts.*got \\{"
        empty = firing.FiringCounts({"sn1": COUNTS[:0]}, 4)
        bad = partial(compare, empty, empty)
        yield f"firing.{name}: no neurons", bad, "empty|no neurons"
    yield (
        "firing.summary: none",
        partial(firing.summary, firing.FiringCounts({}, 4)),
        "no layers",
    )
    bad = partial(firing.summary, firing.FiringCounts([1, 2], 3))
    yield (
        "firing.summary: no layers' names",
        bad,
        "spikes must be \\{layer.*got \\[1, 2",
    )
    bad = partial(firing.report, MADE, MADE, method="pot")
    yield "firing.report: method", bad, '"exact" or "ott", got \'pot\''
    yield "FiringCounts: sum of layers", lambda: MADE + OTHER, "different: \\['sn2'\\]"
    yield "FiringCounts: sum with 0", lambda: MADE + 0, "FiringCounts.*got 0"
    floor = firing.noise_floor
    yield "firing.noise_floor: one", partial(floor, [MADE]), "at least two.*got 1"
    bad = partial(floor, [MADE, OTHER])
    yield "firing.noise_floor: layers", bad, "different: \\['sn2'\\]"
    run = partial(floor, [MADE, MADE])
    yield "firing.noise_floor: method", partial(run, method="x"), "method .*got 'x'"
    for level in (0, 1, -0.1, np.nan, "5%"):
        bad = partial(run, alpha=level)
        yield f"firing.noise_floor: {level!r}", bad, f"alpha .*got {level}"
    for number in (1, 20.5, -1, np.nan, "9", None):
        bad = partial(run, replicates=number)
        yield f"firing.noise_floor: {number!r}", bad, f"replicates.* and {number}"


def cost_cases():
    """Operations and memory."""
    synapse = cost.Synapse("fc", ("sn1",), "add", (), (), (), (3,), (10,))
    run = cost.synaptic_operations
    bad = partial(run, [synapse], {"sn2": COUNTS}, 4)
    yield "cost: no counts", bad, "fc is fed by sn1.*\\['sn2'\\]"
    bad = partial(run, [synapse], {"sn1": COUNTS[:2]}, 4)
    yield "cost: shape", bad, "sn1 must have .*\\(3,\\), got \\(2,\\)"
    for value in (0, -1, np.nan, "4", None, 1.5):
        bad = partial(run, [synapse], {"sn1": COUNTS}, value)
        yield f"cost: images={value!r}", bad, f"images must be .*got {value!r}"
    for value, says in ((RATES, "float32"), ("text", "'text'"), (COUNTS - 1, "-1")):
        bad = partial(run, [synapse], {"sn1": value}, 4)
        yield f"cost: counts {value}", bad, f"sn1 must .*got {says}"
    for number, bits in (
        (-1, 2),
        (2, -1),
        (np.inf, 2),
        (2, np.nan),
        ("a", 2),
        (2, None),
    ):
        bad = partial(cost.memory_bits, [(number, bits)])
        says = f"sizes must be .*got \\({number!r}, {bits!r}\\)"
        yield f"cost.memory_bits: {number}, {bits}", bad, says


def batch_cases():
    """Orders and data."""
    order = np.arange(5, dtype=np.int32)
    for bad in (
        (-1, 0, 5),
        (0, -1, 5),
        (0, 0, 0),
        (0.5, 0, 5),
        (0, "1", 5),
        (0, 0, 2.5),
    ):
        says = f"got {bad[0]!r}, {bad[1]!r} and {bad[2]!r}"
        yield f"data.epoch_order{bad}", partial(data.epoch_order, *bad), says
    for bad in (0, -1, 6, 2.5, "2", None):
        says = f"batch_size: expected 1 to 5.*got {bad!r}"
        call = partial(data.train_batches, order, bad)
        yield f"data.train_batches: {bad!r}", call, says
    bad = partial(data.train_batches, order[:0], 1)
    yield "data.train_batches: no images", bad, "at least one image|1 to 0"
    for bad in ((0, 2), (3, 0), (-1, 2), (2.5, 2), (3, "2"), (3, None)):
        says = f"got {bad[0]!r} and {bad[1]!r}"
        yield f"data.eval_batches{bad}", partial(data.eval_batches, *bad), says
    yield (
        "data.permutation: none",
        partial(data.permutation, -1, np.random.SeedSequence(0)),
        "n must be .*got -1",
    )
