"""Quantizers as custom-VJP functions, one method a file.

Each method is fake quantization: it maps real numbers to the nearest of at most
``2**bits`` real levels, with a straight-through gradient. `QuantSpec` names a method
and holds its numbers as traced leaves, so that a sweep over bits and clips compiles
once.

Levels are those of the documented formulas in exact arithmetic, ties included (uniform,
LSQ, MINT, DoReFa). `QuantSpec.encode` returns weights as whole numbers and a scale;
`pack` packs them, b bits a code. Bits and clips are checked unless they are traced.
There is no forward mode: `jax.jvp` and `jax.jacfwd` raise JAX's TypeError for a
custom VJP.
"""

from snnjax.quantize.dorefa import dorefa as dorefa
from snnjax.quantize.lq_levels import lq_levels as lq_levels
from snnjax.quantize.lq_levels import lq_levels_init as lq_levels_init
from snnjax.quantize.lqnet import LqState as LqState
from snnjax.quantize.lqnet import lq_fit as lq_fit
from snnjax.quantize.lqnet import lq_net as lq_net
from snnjax.quantize.lqnet import lq_solve as lq_solve
from snnjax.quantize.lqnet import lq_update as lq_update
from snnjax.quantize.lsq import lsq as lsq
from snnjax.quantize.lsq import lsq_init as lsq_init
from snnjax.quantize.mint import mint as mint
from snnjax.quantize.mint import mint_init as mint_init
from snnjax.quantize.packing import pack as pack
from snnjax.quantize.packing import unpack as unpack
from snnjax.quantize.powers import power_of_two as power_of_two
from snnjax.quantize.signs import binary as binary
from snnjax.quantize.signs import ternary as ternary
from snnjax.quantize.spec import QuantSpec as QuantSpec
from snnjax.quantize.uniform import uniform as uniform
