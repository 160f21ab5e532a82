"""Firing of a network: spike counts, rates, and differences between two networks.

A neuron is one position (h, w, c). Its rate is spikes / (T x images), in spikes per
time step, within [0, 1].
"""

from snnjax.firing.compare import DEAD as DEAD
from snnjax.firing.compare import SATURATED as SATURATED
from snnjax.firing.compare import FiringReport as FiringReport
from snnjax.firing.compare import RateSummary as RateSummary
from snnjax.firing.compare import kolmogorov_smirnov as kolmogorov_smirnov
from snnjax.firing.compare import mean_shift as mean_shift
from snnjax.firing.compare import paired_shift as paired_shift
from snnjax.firing.compare import report as report
from snnjax.firing.compare import summary as summary
from snnjax.firing.counts import FiringCounts as FiringCounts
from snnjax.firing.counts import total as total
from snnjax.firing.counts import total_by_group as total_by_group
from snnjax.firing.files import load_counts as load_counts
from snnjax.firing.files import save_counts as save_counts
from snnjax.firing.verdict import LayerVerdict as LayerVerdict
from snnjax.firing.verdict import Measure as Measure
from snnjax.firing.verdict import Verdict as Verdict
from snnjax.firing.verdict import verdict as verdict
