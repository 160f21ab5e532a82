r"""Earth mover's distances between firing distributions.

In one dimension the p-Wasserstein distance has a closed form: with :math:`F` the
distribution functions and :math:`Q` the quantile functions of two sets of rates,

.. math:: W_1(u, v) = \int |F_u(r) - F_v(r)|\, dr = \int_0^1 |Q_u(s) - Q_v(s)|\, ds,

in the unit of its input (rates: spikes per time step). It asks how the rates are
distributed and not which neuron has which: `firing.paired_shift`, which does, is never
smaller.

=======================  ==============================================================
`emd_from_counts`        exact, from spike counts; for measuring; no gradient
`wasserstein_1d`         exact, of samples or weighted samples; subgradient
`wasserstein_p_1d`       the same for other powers of the distance
`histogram_emd`          exact, between histograms over equal bins
`soft_cdf_distance`      smooth, without sorting; for training against a fixed target
`sinkhorn_divergence`    entropic, through ott-jax; for comparison, up to 16,384 neurons
`sliced`                 between clouds in more dimensions, such as (rate, latency)
`flow`                   which mass moved, from which rate to which
`transport_plan`         the same between samples, by ott-jax
=======================  ==============================================================
"""

from snnjax.emd.counts import emd_from_counts as emd_from_counts
from snnjax.emd.counts import ks_from_counts as ks_from_counts
from snnjax.emd.counts import layer_emd as layer_emd
from snnjax.emd.flow import Flow as Flow
from snnjax.emd.flow import flow as flow
from snnjax.emd.histogram import histogram_emd as histogram_emd
from snnjax.emd.samples import wasserstein_1d as wasserstein_1d
from snnjax.emd.samples import wasserstein_p_1d as wasserstein_p_1d
from snnjax.emd.sliced import sliced as sliced
from snnjax.emd.soft import soft_cdf as soft_cdf
from snnjax.emd.soft import soft_cdf_distance as soft_cdf_distance
from snnjax.emd.transport import TransportPlan as TransportPlan
from snnjax.emd.transport import ott_wasserstein_1d as ott_wasserstein_1d
from snnjax.emd.transport import sinkhorn_divergence as sinkhorn_divergence
from snnjax.emd.transport import transport_plan as transport_plan
