"""snnjax: quantized spiking neural networks in JAX, measured beyond accuracy.

The library is a set of modules, each with one idea; import the one you need::

    from snnjax import emd, firing, neurons, quantize
    from snnjax.models import sew_resnet18

Importing ``snnjax`` itself loads none of them, so it costs nothing.
"""

__version__ = "0.1.0"
