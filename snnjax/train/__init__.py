"""Training and evaluation: pure steps under ``jax.jit``, and the loops around them.

One path serves one network or many: every state has the axis of networks in front. A
step is compiled once for each structure of the network. Numbers that a study sweeps are
traced: bits, clips, neuron constants, and learning rates (with `sgd`, `adamw`, `muon`).
Batches and random keys are functions of (seed, step), so a run that is resumed from a
`TrainState` is the run that was never stopped.
"""

from snnjax.train.averaging import average_weights as average_weights
from snnjax.train.averaging import averaged_model as averaged_model
from snnjax.train.eval_step import make_eval_step as make_eval_step
from snnjax.train.evaluate import Evaluation as Evaluation
from snnjax.train.evaluate import evaluate as evaluate
from snnjax.train.guards import NonFiniteError as NonFiniteError
from snnjax.train.loop import Progress as Progress
from snnjax.train.loop import fit as fit
from snnjax.train.loop import steps as steps
from snnjax.train.loop import steps_per_epoch as steps_per_epoch
from snnjax.train.losses import cross_entropy as cross_entropy
from snnjax.train.losses import loss_fn as loss_fn
from snnjax.train.losses import smoothed_cross_entropy as smoothed_cross_entropy
from snnjax.train.memory import estimate_memory as estimate_memory
from snnjax.train.optimizers import CosineSchedule as CosineSchedule
from snnjax.train.optimizers import adamw as adamw
from snnjax.train.optimizers import cosine as cosine
from snnjax.train.optimizers import decay_mask as decay_mask
from snnjax.train.optimizers import muon as muon
from snnjax.train.optimizers import one_cycle as one_cycle
from snnjax.train.optimizers import sgd as sgd
from snnjax.train.sharding import make_mesh as make_mesh
from snnjax.train.state import TrainState as TrainState
from snnjax.train.state import init as init
from snnjax.train.state import model_from_state as model_from_state
from snnjax.train.state import split as split
from snnjax.train.state import stack as stack
from snnjax.train.state import unstack as unstack
from snnjax.train.step import Metrics as Metrics
from snnjax.train.step import make_train_step as make_train_step
