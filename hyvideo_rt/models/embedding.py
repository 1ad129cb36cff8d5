"""A table of vectors that can be built on the meta device for nothing."""

from torch import nn


class Embedding(nn.Embedding):
    """`nn.Embedding` with initial weights of unit variance drawn uniformly instead of normally.

    The first `normal_` on the meta device imports sympy and all of torch's decompositions: 1.0 s of start-up,
    as much as torch itself (torch 2.13, one CPU core). `uniform_` has a meta kernel of its own.
    """

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -(3**0.5), 3**0.5)
