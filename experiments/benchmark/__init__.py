"""Measure the speed and memory of snnjax and of other libraries.

    python -m experiments.benchmark --only emd conv
    python -m experiments.benchmark --python spikingjelly=PATH snntorch=PATH spyx=PATH

All rows of a table do the same work, in turn (A B C A B C ...), with each library's
default threads; tables show medians and their ratios to the first row. Functions run in
this process; networks run each in a process of its own, on the CPU, so that the threads
and the memory of torch and JAX do not meet, and a peer may have its own environment.

Peers that are not installed are left out. ``pip install -e '.[bench]'`` brings them
all, torch among them, so into another environment than the suite's; give ``--python``
its interpreter, or run the benchmark in it.

``timing`` measures in turn, ``contender`` runs the programs in ``workers``; ``emd``,
``conv`` and ``networks`` make the comparisons, ``tables`` prints them.
"""
