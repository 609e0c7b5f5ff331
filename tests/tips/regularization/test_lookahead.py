import torch
from torch import nn

from dltips.nets.flat import FlatModel
from dltips.tips.regularization import Lookahead


def test_every_few_steps_the_weights_are_the_slow_ones() -> None:
    """Against the paper's algorithm, with a plain descent on random gradients as the inner loop."""
    net = FlatModel(nn.Linear(3, 2))
    lookahead = Lookahead(steps=4, alpha=0.3)
    slow = fast = net.parameters.clone()
    for step in range(1, 14):
        gradient = torch.randn_like(fast)
        lookahead.on_gradient(net)
        net.parameters.sub_(gradient, alpha=0.1)
        lookahead.after_step(net)
        fast = fast - 0.1 * gradient
        if step % 4 == 0:
            slow = slow + 0.3 * (fast - slow)
            fast = slow
        assert torch.allclose(net.parameters, fast, atol=1e-6), step


def test_alpha_one_follows_the_fast_weights() -> None:
    net = FlatModel(nn.Linear(3, 2))
    lookahead = Lookahead(steps=1, alpha=1.0)
    lookahead.on_gradient(net)
    net.parameters.add_(1.0)
    moved = net.parameters.clone()
    lookahead.after_step(net)
    assert torch.equal(net.parameters, moved)
