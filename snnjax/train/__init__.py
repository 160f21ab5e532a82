"""Training and evaluation: pure steps under ``jax.jit``, and the loops around them.

A step is compiled once for each structure of the network. What a study sweeps is
traced: bits, clips and neuron constants lie in the state, the learning rate is an
argument. Batches and random keys are functions of (seed, step), so a run that is
resumed from a `TrainState` is the run that was never stopped.
"""

from snnjax.train.devices import make_mesh as make_mesh
from snnjax.train.devices import put as put
from snnjax.train.devices import unstacked as unstacked
from snnjax.train.eval_steps import GROUPS as GROUPS
from snnjax.train.eval_steps import make_eval_step as make_eval_step
from snnjax.train.eval_steps import make_trains_step as make_trains_step
from snnjax.train.evaluation import Evaluation as Evaluation
from snnjax.train.evaluation import evaluate as evaluate
from snnjax.train.evaluation import evaluate_sweep as evaluate_sweep
from snnjax.train.guards import NonFinite as NonFinite
from snnjax.train.loop import Progress as Progress
from snnjax.train.loop import cosine as cosine
from snnjax.train.loop import fit as fit
from snnjax.train.loop import one_cycle as one_cycle
from snnjax.train.loop import steps_per_epoch as steps_per_epoch
from snnjax.train.memory import estimate_memory as estimate_memory
from snnjax.train.steps import OPTIMIZERS as OPTIMIZERS
from snnjax.train.steps import Metrics as Metrics
from snnjax.train.steps import TrainState as TrainState
from snnjax.train.steps import adamw as adamw
from snnjax.train.steps import init as init
from snnjax.train.steps import make_train_step as make_train_step
from snnjax.train.steps import sgd as sgd
from snnjax.train.steps import split as split
from snnjax.train.steps import trained as trained
from snnjax.train.sweep import SweepProgress as SweepProgress
from snnjax.train.sweep import sweep as sweep
