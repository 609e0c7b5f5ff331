"""Init schemes: `(model, generator_for, inputs, *, knobs) -> None`, once, before step 0. Biases 0, save init=default.

`generator_for(name)` is a stream per parameter; `inputs` is one preprocessed batch, for schemes that look at data.
What is set is each weight matrix and filter bank; norms and learned slopes keep the start that they have.
"""

from dltips.tips.init.base import GeneratorFor, Weight, init, weights_of
from dltips.tips.init.gain import gain_of
from dltips.tips.init.orthonormal import delta_orthogonal, dirac, lsuv, orthogonal
from dltips.tips.init.plain import constant, default, small_random, zeros
from dltips.tips.init.variance import calibrated, he, xavier, xavier_fc_gaussian_conv

__all__ = [
    "GeneratorFor",
    "Weight",
    "calibrated",
    "constant",
    "default",
    "delta_orthogonal",
    "dirac",
    "gain_of",
    "he",
    "init",
    "lsuv",
    "orthogonal",
    "small_random",
    "weights_of",
    "xavier",
    "xavier_fc_gaussian_conv",
    "zeros",
]
