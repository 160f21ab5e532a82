"""Convolution with a fast CPU path for training."""

from snnjax.conv.conv2d import conv2d as conv2d
from snnjax.conv.plan import Choice as Choice
from snnjax.conv.plan import Plan as Plan
from snnjax.conv.plan import plan as plan
