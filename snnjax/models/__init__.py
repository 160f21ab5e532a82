"""Spiking networks; each returns logits and the spikes of every layer."""

from snnjax.models.sew_resnet import SEWResNet as SEWResNet
from snnjax.models.sew_resnet import sew_resnet8 as sew_resnet8
from snnjax.models.sew_resnet import sew_resnet18 as sew_resnet18
from snnjax.models.sew_resnet import sew_resnet34 as sew_resnet34
