"""The training step compiled for a TPU that is not there: memory, work, collectives.

    python -m experiments.tpu_compile --topology v5e:2x4 --model sew_resnet18
    python -m experiments.tpu_compile --topology v6e:2x4 --largest-batch

XLA compiles for a TPU wherever its library lies: ``pip install -e '.[tpu-compile]'``,
in an environment of its own, for where JAX finds it, it looks for a TPU. Nothing runs,
so there are no times here. What is compiled is `train.make_train_step` over all chips
of the topology, the data set on each of them, as the study has it.

``xla`` reads what XLA says of a program, ``step`` compiles one, ``table`` shows what it
found. Imports run in that order.
"""
