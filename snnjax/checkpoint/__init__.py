"""Files: the last states of a training run, single ones, and weights for others.

`History` is for training that may be stopped at any moment, `save` and `load` for one
pytree, `export` and `load` for weights as ``.safetensors``. All are written whole or
not at all, and nothing that is read is ever executed: there is no pickle in them.
"""

from snnjax.checkpoint.history import Damaged as Damaged
from snnjax.checkpoint.history import History as History
from snnjax.checkpoint.single import exists as exists
from snnjax.checkpoint.single import load as load
from snnjax.checkpoint.single import remove as remove
from snnjax.checkpoint.single import save as save
from snnjax.checkpoint.weights import config as config
from snnjax.checkpoint.weights import export as export
