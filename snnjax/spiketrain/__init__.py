"""Distances between spike trains in time, one for each neuron.

Firing rates forget when a neuron fires; these do not. Trains are ``[T, ...]``, time
first, 0 or 1 of any dtype: bool is fastest. A spike of step t lies at time t + 0.5 in
the window [0, T], and the unit of time is the step. Every function is batched over all
axes behind time, and numbers (tau, cost, unmatched) may be traced: sweeping them does
not recompile.

Which one? `time_wasserstein` for few steps (T = 4): exact, in time steps, and equal
weight for every spike. `van_rossum` to train on: it has a gradient by the spikes.
`victor_purpura`, `isi` and `spike` to compare with the literature and for long trains.
`latency` where the first spike carries the code.
"""

from snnjax.spiketrain.isi import isi as isi
from snnjax.spiketrain.latency import latency as latency
from snnjax.spiketrain.latency import latency_total as latency_total
from snnjax.spiketrain.matching import time_wasserstein as time_wasserstein
from snnjax.spiketrain.matching import victor_purpura as victor_purpura
from snnjax.spiketrain.spike import spike as spike
from snnjax.spiketrain.van_rossum import van_rossum as van_rossum
