"""How fast snnjax is, and what memory it takes, beside what people use today.

    python -m experiments.benchmark --only emd conv
    python -m experiments.benchmark --python spikingjelly=PATH snntorch=PATH spyx=PATH

All rows of a table do the same work, in turn (A B C A B C ...), with whatever threads
each library takes by itself; the median counts, and what it is divided by stands beside
it. Losses are printed as well as wins. Functions run in this process; networks run each
in a process of its own, on the CPU, so that the threads and the memory of torch and JAX
do not meet, and so that a peer may live in an environment of its own.

Peers that are not installed are left out. ``pip install -e '.[bench]'`` brings them
all, torch among them, so into another environment than the suite's; give ``--python``
its interpreter, or run the benchmark in it.

``timing`` measures in turn, ``contender`` talks to the programs in ``workers``;
``emd``, ``conv`` and ``networks`` say what is compared, ``tables`` shows it.
"""
