"""Compile the training step for an absent TPU: memory, operations, collectives.

    python -m experiments.tpu_compile --topology v5e:2x4 --model sew_resnet18
    python -m experiments.tpu_compile --topology v6e:2x4 --largest-batch

XLA compiles for a TPU wherever its library is installed: ``pip install -e
'.[tpu-compile]'``, in an environment of its own, because JAX looks for a TPU where it
finds that. Nothing runs, so there are no times here. It compiles
`train.make_train_step` over all chips of the topology, with the data set on each of
them, as in the study.

``step`` compiles and parses XLA's reports.
"""
