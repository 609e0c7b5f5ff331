"""Lays out a model's parameters and gradients in flat buffers; marks which parameters may decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 16  # elements of 4 bytes: every parameter starts on a 64-byte boundary


@dataclass(frozen=True)
class Segment:
    """The place of one parameter in the flat buffers."""

    name: str
    parameter: nn.Parameter
    start: int
    stop: int
    is_norm: bool  # belongs to a normalization layer

    @property
    def is_weight(self) -> bool:
        """Whether it is a matrix or a filter bank, units in its first dimension; not a bias, not a norm's scale."""
        return self.parameter.dim() >= 2 and not self.is_norm


class FlatModel:
    """A module whose trainable parameters are views of one flat buffer, and whose gradients are views of another.

    Make it last, after device, dtype and memory format are final: `module.to(memory_format=...)` would break the
    views silently. Zero the gradients with `gradients.zero_()`; `zero_grad()` would replace them.
    """

    def __init__(self, module: nn.Module, frozen: Sequence[nn.Module] = ()) -> None:
        self.module = module
        self.learning_rate = 0.0  # of the current step, set by the loop
        self.flatten(frozen)

    def flatten(self, frozen: Sequence[nn.Module] = ()) -> None:
        """Lays out the trainable parameters, again whenever they change. Flat tensors made before become invalid.

        `frozen` are the frozen parts: in eval mode, their buffers too.
        """
        self.frozen = frozen
        self.rate_factors: Tensor | None = None  # flat factors of each parameter's rate, if they differ
        module = self.module
        norms = {id(parameter) for layer in module.modules() if is_norm(layer) for parameter in layer.parameters(False)}
        trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        segments, start = [], 0
        for name, parameter in trainable:
            segments.append(Segment(name, parameter, start, start + parameter.numel(), id(parameter) in norms))
            start += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        self.segments: Sequence[Segment] = tuple(segments)
        self.count = sum(segment.stop - segment.start for segment in segments)
        like = trainable[0][1] if trainable else torch.zeros(0)
        self.parameters = torch.zeros(start, dtype=like.dtype, device=like.device)
        self.gradients = torch.zeros_like(self.parameters)
        for segment in segments:
            parameter = segment.parameter
            assert parameter.dtype == like.dtype, "mixed dtypes do not fit one buffer"
            self._view(self.parameters, segment).copy_(parameter.data)
            parameter.data = self._view(self.parameters, segment)
            parameter.grad = self._view(self.gradients, segment)
        frozen_parameters = {
            name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad
        }
        for parameter in frozen_parameters.values():
            parameter.grad = None
        frozen_buffers = {id(buffer) for part in frozen for buffer in part.buffers()}
        # names in the state dict of tensors that no step changes
        self.constant = {
            *frozen_parameters,
            *(name for name, buffer in module.named_buffers() if id(buffer) in frozen_buffers),
        }
        self._unused: list[str] | None = None
        self._watch_first_backward()

    def train(self) -> None:
        """Sets training mode, except for the frozen parts."""
        self.module.train()
        for part in self.frozen:
            part.eval()

    def _view(self, flat: Tensor, segment: Segment) -> Tensor:
        """Returns the segment of a flat buffer in the parameter's own shape and strides (channels_last is kept)."""
        parameter = segment.parameter
        strides = parameter.stride() if _is_dense(parameter) else torch.empty_like(parameter).stride()
        return flat.as_strided(parameter.shape, strides, segment.start)

    def views(self, flat: Tensor) -> list[tuple[Segment, Tensor]]:
        """Returns every segment with its part of a flat buffer, in the parameter's shape."""
        return [(segment, self._view(flat, segment)) for segment in self.segments]

    def _watch_first_backward(self) -> None:
        for handle in getattr(self, "_handles", ()):  # of an earlier layout
            handle.remove()
        seen: set[str] = set()
        handles = [
            segment.parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _, name=segment.name: seen.add(name)
            )
            for segment in self.segments
        ]
        self._seen, self._handles = seen, handles

    def detect_unused(self) -> None:
        """Detects, after the first backward pass, the parameters without a gradient, which must not decay."""
        if self._unused is None:
            for handle in self._handles:
                handle.remove()
            for segment in self.segments:
                if not segment.parameter._post_accumulate_grad_hooks:
                    # else each backward pass calls Python for the removed hooks: 5 % of a step of the digits mlp
                    segment.parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]
            self._unused = [segment.name for segment in self.segments if segment.name not in self._seen]

    def decay_mask(self, *, spare: bool) -> Tensor:
        """Returns a flat mask: 1 where a parameter may decay; 0 without a gradient and, if spared, on norms, biases."""
        assert self._unused is not None, "asked before the first backward pass"
        mask = torch.zeros_like(self.parameters)
        for segment in self.segments:
            if segment.name not in self._unused and (segment.is_weight or not spare):
                mask[segment.start : segment.stop] = 1
        return mask

    def assert_views(self) -> None:
        """Asserts that every parameter and gradient is still a view of the flat buffers."""
        size = self.parameters.element_size()
        for segment in self.segments:
            gradient = segment.parameter.grad
            assert segment.parameter.data_ptr() == self.parameters.data_ptr() + segment.start * size, segment.name
            assert gradient is not None and gradient.data_ptr() == self.gradients.data_ptr() + segment.start * size


def is_norm(layer: nn.Module) -> bool:
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm)
    return isinstance(layer, kinds)


def _is_dense(parameter: Tensor) -> bool:
    return parameter.is_contiguous() or (
        parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    )


def weighted_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns the layers with a weight matrix or filters, in the order of definition; init schemes set these."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
