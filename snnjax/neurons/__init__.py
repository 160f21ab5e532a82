"""Integrate-and-fire neurons: charge, fire, reset, scanned over time.

Each neuron is a function from input currents ``[T, ...]`` to spikes ``[T, ...]`` and
the last membrane potential ``[...]``. The state is an argument and at rest by default,
so there is nothing to reset between batches, and a long sequence may be run in pieces
by giving ``v_final`` as the next ``v_init``: under ``jax.jit`` the same to the last
bit. `LIF`, `IF` and
`PLIF` bundle a neuron's numbers: those are traced leaves, so sweeping them does not
recompile.

Others' neurons in these terms, with ``detach_reset=False``: snnTorch's ``Leaky(beta,
reset_delay=False)`` is ``lif(tau=1 / (1 - beta), decay_input=False)``, its "zero" with
``v_reset=0`` and its "subtract" with ``None`` (where that leaves the potential above
the threshold, snnTorch subtracts again before the next spike); Norse's ``lif_box`` is
``lif(tau=1 / (dt * tau_mem_inv))``. Both fire on ``H > v_threshold``: at exactly the
threshold only ours and SpikingJelly's do.
"""

from snnjax.neurons.current import CubaState as CubaState
from snnjax.neurons.current import cuba_lif as cuba_lif
from snnjax.neurons.integrator import li as li
from snnjax.neurons.modules import IF as IF
from snnjax.neurons.modules import LI as LI
from snnjax.neurons.modules import LIF as LIF
from snnjax.neurons.modules import PLIF as PLIF
from snnjax.neurons.modules import CubaLIF as CubaLIF
from snnjax.neurons.modules import Neuron as Neuron
from snnjax.neurons.own import StepNeuron as StepNeuron
from snnjax.neurons.own import from_step as from_step
from snnjax.neurons.sequence import if_ as if_
from snnjax.neurons.sequence import lif as lif
from snnjax.neurons.sequence import plif as plif
from snnjax.neurons.step import SITES as SITES
from snnjax.neurons.step import step as step
