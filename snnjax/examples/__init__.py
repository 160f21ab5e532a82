"""A trained network and its data, to try the library on: both ship in the wheel."""

from snnjax.examples.pretrained import Example as Example
from snnjax.examples.pretrained import digits as digits
