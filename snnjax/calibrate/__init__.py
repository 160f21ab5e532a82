"""Post-training quantization: put quantizers on a trained network and fit them."""

from snnjax.calibrate.allocate import allocate_bits as allocate_bits
from snnjax.calibrate.batchnorm import reestimate_batchnorm as reestimate_batchnorm
from snnjax.calibrate.bias import correct_bias as correct_bias
from snnjax.calibrate.clip import choose_clip as choose_clip
from snnjax.calibrate.fire import fire_match as fire_match
from snnjax.calibrate.osbc import osbc as osbc
from snnjax.calibrate.quantize import quantize as quantize
from snnjax.calibrate.reconstruct import reconstruct as reconstruct
from snnjax.calibrate.scale import scale_to_clip as scale_to_clip
from snnjax.layers.inspect import LayerBits as LayerBits
from snnjax.layers.inspect import describe as describe
from snnjax.layers.inspect import layer_bits as layer_bits
from snnjax.layers.inspect import memory_bits as memory_bits
