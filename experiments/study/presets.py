"""Studies by name: what a preset sets, any other option overrides.

    python -m experiments.study --preset paper-cifar100 --data-dir DIR

``paper-small`` and ``paper-small-cifar100`` are the studies of CIFAR in docs/results,
for two CPU cores; ``baseline-cifar10`` and ``-cifar100`` train a larger network there,
and quantize little; the other two are the paper's networks, for a TPU or a GPU.
"""

import dataclasses

from experiments.study.config import TINY, StudyConfig

# The paper does not give its recipe. This is the usual one of residual networks on
# CIFAR: He et al., 2016, section 4.2, with the cosine of Loshchilov and Hutter, 2017.
_PAPER = StudyConfig(
    dataset="cifar10",
    model="sew_resnet18",
    width=64,
    epochs=200,
    qat_epochs=20,
    seeds=(0, 1, 2),
    repeat=True,
    ablation_bits=(2, 4),
    membrane_grid=("mid_tread", "lq_net"),
    batch_size=128,
    schedule="cosine",
    warmup_epochs=5,
    weight_decay=5e-4,
    save_seconds=300.0,
)
# So small a network does not overfit: it decays less, and one cycle is enough.
_SMALL = StudyConfig(
    dataset="cifar10",
    model="sew_resnet8",
    width=16,
    epochs=20,
    qat_epochs=2,
    seeds=(0, 1),
    repeat=True,
    qat_bits=(2, 4),
    repeat_qat_bits=(2,),
    ablation_bits=(2, 4),
    weight_decay=1e-4,
    save_seconds=120.0,
)

# A larger baseline on two cores. Most steps see an image once, which costs a quarter of
# T = 4; the last ones see it as it is tested.
_BASELINE = StudyConfig(
    dataset="cifar10",
    model="sew_resnet8",
    width=64,
    # With the current halved 200 steps at T = 1 learn next to nothing.
    decay_input=False,
    epochs=20,
    warm_start=0.95,
    qat_epochs=1,
    modes=("ptq_bn",),
    bits=(4,),
    batch_size=128,
    # 135 steps at T = 1: 0.46 of the held-out images; by SGD, at 0.1, 0.34.
    optimizer="muon",
    weight_decay=0.05,
    label_smoothing=0.1,
    average=0.99,
    save_seconds=300.0,
)

PRESETS = {
    "paper-cifar10": _PAPER,
    "paper-cifar100": dataclasses.replace(_PAPER, dataset="cifar100"),
    "paper-small": _SMALL,
    "paper-small-cifar100": dataclasses.replace(
        _SMALL, dataset="cifar100", repeat_qat_bits=(), ablation_bits=()
    ),
    "baseline-cifar10": _BASELINE,
    "baseline-cifar100": dataclasses.replace(_BASELINE, dataset="cifar100", seeds=(0,)),
}


def presets(*, tiny: bool) -> dict[str, StudyConfig]:
    """Return `PRESETS`; with ``tiny``, without the options that it makes small."""
    usual = StudyConfig()
    unset = {name: getattr(usual, name) for name in TINY} if tiny else {}
    return {
        name: dataclasses.replace(preset, **unset) for name, preset in PRESETS.items()
    }
