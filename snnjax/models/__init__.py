"""Spiking networks; each returns logits and the spikes of every layer."""

from snnjax.models.connections import Synapse as Synapse
from snnjax.models.graph import Node as Node
from snnjax.models.graph import network_graph as network_graph
from snnjax.models.graph_network import GraphNetwork as GraphNetwork
from snnjax.models.protocol import SpikingModel as SpikingModel
from snnjax.models.protocol import check_model_call as check_model_call
from snnjax.models.sequential import Sequential as Sequential
from snnjax.models.sew_resnet import SEWResNet as SEWResNet
from snnjax.models.sew_resnet import sew_resnet8 as sew_resnet8
from snnjax.models.sew_resnet import sew_resnet18 as sew_resnet18
from snnjax.models.sew_resnet import sew_resnet34 as sew_resnet34
from snnjax.models.sew_resnet import sew_resnet50 as sew_resnet50
from snnjax.models.sew_resnet import sew_resnet101 as sew_resnet101
from snnjax.models.sew_resnet import sew_resnet152 as sew_resnet152
from snnjax.models.spiking_vgg import SpikingVGG as SpikingVGG
from snnjax.models.spiking_vgg import spiking_vgg16 as spiking_vgg16
from snnjax.models.spiking_vgg import spiking_vgg_small as spiking_vgg_small
