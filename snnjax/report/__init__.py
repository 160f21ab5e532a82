"""Report card: what quantization did to the firing of a network, on one page."""

from snnjax.report.attribution import Attribution as Attribution
from snnjax.report.attribution import Contribution as Contribution
from snnjax.report.attribution import attribute as attribute
from snnjax.report.card import ReportCard as ReportCard
from snnjax.report.card import compare as compare
from snnjax.report.card import rank as rank
from snnjax.report.card import write_json as write_json
