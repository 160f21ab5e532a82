"""Runs that survive: results, checkpoints, several hosts, preemption.

`Store` is the folder of a run, with an append-only table of results. `resumable` makes
a training loop of your own resume, save and stop on a signal. The rest are its parts:
`RunCheckpoints`, the primary host (`is_primary`, `run_on_primary`, ...), and signals
(`handle_signals`, `raise_if_stopping`).
"""

from snnjax.runs.checkpoints import CorruptCheckpointError as CorruptCheckpointError
from snnjax.runs.checkpoints import RunCheckpoints as RunCheckpoints
from snnjax.runs.hosts import abort_on_unexpected_error as abort_on_unexpected_error
from snnjax.runs.hosts import all_gather as all_gather
from snnjax.runs.hosts import broadcast_from_primary as broadcast_from_primary
from snnjax.runs.hosts import check_same_options as check_same_options
from snnjax.runs.hosts import initialize as initialize
from snnjax.runs.hosts import is_primary as is_primary
from snnjax.runs.hosts import load_on_primary as load_on_primary
from snnjax.runs.hosts import run_on_all_hosts as run_on_all_hosts
from snnjax.runs.hosts import run_on_primary as run_on_primary
from snnjax.runs.loop import Resumable as Resumable
from snnjax.runs.loop import resumable as resumable
from snnjax.runs.loop import watch as watch
from snnjax.runs.preemption import PreemptedError as PreemptedError
from snnjax.runs.preemption import handle_signals as handle_signals
from snnjax.runs.preemption import raise_if_stopping as raise_if_stopping
from snnjax.runs.preemption import received_signal as received_signal
from snnjax.runs.store import MissingArraysError as MissingArraysError
from snnjax.runs.store import Row as Row
from snnjax.runs.store import Store as Store
from snnjax.runs.store import config_hash as config_hash
