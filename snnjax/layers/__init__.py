"""The layers of a quantized spiking network, in Flax NNX.

Convolution and BatchNorm see time and batch at once, ``[T, B, ...]`` or ``[B, ...]``;
only `Spiking` knows time. A layer's numbers (a neuron's, a quantizer's) are the value
of one `Hyperparameter` variable, so that they are traced and not part of the graph.
"""

from snnjax.layers.linear import QuantConv as QuantConv
from snnjax.layers.linear import QuantLinear as QuantLinear
from snnjax.layers.linear import QuantScale as QuantScale
from snnjax.layers.linear import kaiming_normal_fan_out as kaiming_normal_fan_out
from snnjax.layers.linear import keep_inputs as keep_inputs
from snnjax.layers.membranes import record_membranes as record_membranes
from snnjax.layers.norm import EPSILON as EPSILON
from snnjax.layers.norm import MOMENTUM as MOMENTUM
from snnjax.layers.norm import BatchNorm as BatchNorm
from snnjax.layers.norm import batch_norm as batch_norm
from snnjax.layers.norm import mask_time as mask_time
from snnjax.layers.norm import normalize as normalize
from snnjax.layers.observe import Observation as Observation
from snnjax.layers.observe import observe as observe
from snnjax.layers.pieces import run_piece as run_piece
from snnjax.layers.recurrent import Recurrent as Recurrent
from snnjax.layers.shapes import AvgPool as AvgPool
from snnjax.layers.shapes import Dropout as Dropout
from snnjax.layers.shapes import Flatten as Flatten
from snnjax.layers.shapes import MaxPool as MaxPool
from snnjax.layers.shapes import SumPool as SumPool
from snnjax.layers.spiking import Readout as Readout
from snnjax.layers.spiking import Spiking as Spiking
from snnjax.layers.state import CarriedState as CarriedState
from snnjax.layers.synchronize import synchronize as synchronize
from snnjax.layers.variables import Hyperparameter as Hyperparameter
from snnjax.layers.variables import Hyperparameters as Hyperparameters
from snnjax.layers.variables import LearnedScale as LearnedScale
from snnjax.layers.variables import QuantState as QuantState
from snnjax.layers.variables import project_scales as project_scales
