"""Image and event data sets as uint8 arrays, and augmentation on the device.

Wherever it comes from, a data set is two arrays: digits out of scikit-learn's wheel,
CIFAR through TensorFlow Datasets (TFDS) but without TensorFlow, or your own. What is
larger than memory comes in `Batches`, by grain or any other loader. Pixels stay uint8
until the step that needs them. Augmentation is a pure function of its key.
"""

from snnjax.data.batches import Batch as Batch
from snnjax.data.batches import Batches as Batches
from snnjax.data.batches import as_batches as as_batches
from snnjax.data.batches import batch_input as batch_input
from snnjax.data.dataset import Dataset as Dataset
from snnjax.data.dataset import from_arrays as from_arrays
from snnjax.data.dataset import from_npz as from_npz
from snnjax.data.events import frames_from_events as frames_from_events
from snnjax.data.events import pad_sequences as pad_sequences
from snnjax.data.loading import DATASETS as DATASETS
from snnjax.data.loading import SPLITS as SPLITS
from snnjax.data.loading import load as load
from snnjax.data.on_device import on_device as on_device
from snnjax.data.order import epoch_order as epoch_order
from snnjax.data.order import eval_batches as eval_batches
from snnjax.data.order import permutation as permutation
from snnjax.data.order import train_batches as train_batches
from snnjax.data.transforms import augment as augment
from snnjax.data.transforms import network_input as network_input
from snnjax.data.transforms import normalize as normalize
