"""Convolution with a fast CPU path for training."""

from snnjax.conv.conv2d import conv2d as conv2d
