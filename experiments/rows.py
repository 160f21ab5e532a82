"""The rows that follow from a study's configuration, and the work of each."""

import dataclasses

from experiments.common import Row, StudyConfig

CLIPS = {"narrow": 1.0, "wide": 10.0}
# LQ-Net keeps its 2^bits levels in a table; the library takes no more bits.
LQ_NET_BITS = 8

# The blocks, or the stem's convolution and neurons and the last layer as well.
WEIGHTS = r"layer\d+\.\d+\.(conv\d|downsample\.0)"
MEMBRANES = r"layer\d+\.\d+\.(sn\d|downsample_sn)"
ALL_WEIGHTS = rf"conv1|fc|{WEIGHTS}"
ALL_MEMBRANES = rf"sn1|{MEMBRANES}"

EVAL_BATCH = 128
EVALUATED = 2 / 3  # of an image trained: two forward passes
BATCHNORM_IMAGES = 2048  # training images that BatchNorm is re-estimated on
REESTIMATED = ("ptq_bn", "fp32_bn")  # modes in which it is


def references(config: StudyConfig) -> list[Row]:
    """The partial rows without quantization: all baselines, then what they do alone.

    The controls are trained as long as QAT, and ``fp32_bn`` is PTQ+BN's: the baselines
    with BatchNorm re-estimated.
    """
    names = ("method", "grid", "clip", "signed", "site", "quantize_all", "bits")
    nothing = dict.fromkeys(names)
    modes = ["fp32", "control"] + ["fp32_bn"] * ("ptq_bn" in config.modes)
    return [
        {"target": "none", **nothing, "mode": mode, "seed": seed}
        for mode in modes
        for seed in config.seeds
    ]


def grid(config: StudyConfig) -> list[Row]:
    """The partial rows with quantization, in the order they are made: QAT is last.

    >>> config = StudyConfig(bits=(2, 4), modes=("qat",), only="membrane")
    >>> [(row["signed"], row["bits"], row["mode"]) for row in grid(config)]
    [(True, 2, 'qat'), (True, 4, 'qat'), (False, 2, 'qat'), (False, 4, 'qat')]
    """
    first, *others = config.seeds
    rows = _of_seed(config, first, config.bits, _qat_bits(config))
    for seed in others if config.repeat else ():
        qat_bits = config.repeat_qat_bits
        qat_bits = _qat_bits(config) if qat_bits is None else qat_bits
        rows += _of_seed(config, seed, config.bits, qat_bits)
    if config.ablation_bits:
        qat_bits = tuple(set(config.ablation_bits) & set(_qat_bits(config)))
        scope = dataclasses.replace(config, quantize_all=not config.quantize_all)
        other = "post_reset" if config.site == "pre_fire" else "pre_fire"
        site = dataclasses.replace(config, site=other)
        for there, target in ((scope, "weights"), (site, "membrane")):
            if config.only in (None, target):
                there = dataclasses.replace(there, only=target)
                rows += _of_seed(there, first, config.ablation_bits, qat_bits)
    # Minutes before hours: a run stopped halfway has all that needs no training.
    return sorted(rows, key=lambda row: row["mode"] == "qat")


def planned(config: StudyConfig) -> list[Row]:
    """All partial rows of a study, in the order they are made."""
    return [*references(config), *grid(config)]


def _qat_bits(config: StudyConfig) -> tuple[int, ...]:
    return config.bits if config.qat_bits is None else config.qat_bits


def _of_seed(config: StudyConfig, seed: int, bits, qat_bits) -> list[Row]:
    clips = tuple(CLIPS.values())
    weights = [("uniform", levels) for levels in config.grid] + [("lq_net", None)]
    # Rows of equal program structure follow each other, in training and without it.
    ways = [("weights", *way, True, None, clips) for way in weights]
    membrane = ("uniform", config.membrane_grid)
    if config.membrane_grid == "lq_net":
        membrane = ("lq_net", None)
    ways += [
        ("membrane", *membrane, signed, config.site, clips[:1])
        for signed in (True, False)
    ]
    return [
        {
            "target": target,
            "method": method,
            "grid": levels,
            "clip": clip,
            "signed": signed,
            "site": site,
            "quantize_all": config.quantize_all,
            "bits": b,
            "mode": mode,
            "seed": seed,
        }
        for target, method, levels, signed, site, clips in ways
        if config.only in (None, target)
        for clip in clips
        for b in bits
        if method != "lq_net" or b <= LQ_NET_BITS
        for mode in config.modes
        if mode != "qat" or b in qat_bits
    ]


def row_name(row: Row) -> str:
    """The row's name: unique in a run folder, and a file name.

    >>> row_name(dict(target="none", mode="fp32", seed=0))
    'fp32-s0'
    """
    if row["target"] == "none":
        return f"{row['mode']}-s{row['seed']}"
    parts = (
        row["target"],
        row["method"],
        row["grid"],
        "signed" if row["signed"] else "unsigned",
        # Rows of earlier versions do not have both.
        "prefire" * (row.get("site") == "pre_fire"),
        "all" * bool(row.get("quantize_all")),
        f"clip{row['clip']:g}",
        f"b{row['bits']}",
        row["mode"],
        f"s{row['seed']}",
    )
    return "-".join(part for part in parts if part)


def structure(part: Row) -> str:
    """What a step is compiled for: rows of one structure share its programs."""
    if part["target"] == "none":
        return "full precision"
    if part["target"] == "membrane":
        name = f"membrane {'signed' if part['signed'] else 'unsigned'}"
        name += " pre-fire" * (part["site"] == "pre_fire")
        name += f" lq_net {part['bits']} bit" * (part["method"] == "lq_net")
    elif part["method"] == "lq_net":
        name = f"weights lq_net {part['bits']} bit"
    else:
        name = f"weights {part['method']} {part['grid']}"
    return name + " everywhere" * part["quantize_all"]


def images_of(part: Row, config: StudyConfig, n_train: int, n_test: int) -> float:
    """The work of a row, in images trained.

    A forward pass is a third of one; an evaluation passes the row's network and the
    baseline beside it.
    """
    per_epoch = n_train // config.batch_size * config.batch_size
    tested = -(-n_test // EVAL_BATCH) * EVAL_BATCH * EVALUATED
    epochs = {"fp32": config.epochs, "control": config.qat_epochs}
    epochs["qat"] = config.qat_epochs
    if part["mode"] in REESTIMATED:
        size = min(EVAL_BATCH, n_train)
        return tested + min(n_train, BATCHNORM_IMAGES) // size * size / 3
    if part["mode"] == "control" and config.qat_epochs > 1:
        tested *= 2  # before its last epoch as well
    return tested + epochs.get(part["mode"], 0) * per_epoch
