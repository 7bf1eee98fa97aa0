"""What a CUDA stream that records would refuse, found without one: a look at every operator.

A recording holds kernels alone. It refuses copies from the host's pageable memory, and whatever
waits for the device: values read by the host, shapes that values decide.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
VIEWS = {
    aten.alias, aten.as_strided, aten.detach, aten.expand, aten.lift, aten.permute, aten.select,
    aten.slice, aten.split, aten.split_with_sizes, aten.squeeze, aten.t, aten.transpose,
    aten.unbind, aten.unsqueeze, aten.view, aten._unsafe_view, torch.ops.prim.device,
}  # fmt: skip
"""Operators that launch nothing; the last one is how a tensor without values tells its device."""
KERNELS = {
    aten.__rshift__, aten._native_batch_norm_legit_no_training, aten._softmax, aten._to_copy,
    aten.abs, aten.add, aten.add_, aten.amax, aten.arange, aten.avg_pool2d, aten.bitwise_and,
    aten.bitwise_and_, aten.bitwise_or, aten.bmm, aten.cat, aten.clamp, aten.clamp_min, aten.clone,
    aten.constant_pad_nd, aten.convolution, aten.copy_, aten.div, aten.empty, aten.empty_like,
    aten.eq, aten.fill_, aten.floor, aten.full, aten.full_like, aten.gather, aten.ge,
    aten.grid_sampler_2d, aten.gt, aten.le, aten.linalg_vector_norm, aten.lt, aten.masked_fill,
    aten.max_pool2d_with_indices, aten.maximum, aten.minimum, aten.mm, aten.mul, aten.mul_,
    aten.native_batch_norm, aten.neg, aten.new_zeros, aten.pixel_shuffle, aten.pow, aten.relu,
    aten.relu_, aten.rsub, aten.scalar_tensor, aten.sort, aten.stack, aten.sub, aten.sum, aten.topk,
    aten.where, aten.zero_, aten.zeros, aten.zeros_like,
    # cuDNN's and the batch normalisation of inference, by the names that dispatch gives them.
    aten._batch_norm_no_update, aten.cudnn_batch_norm,
}  # fmt: skip
"""Operators of torch 2.13's CUDA sources that launch kernels and neither copy nor wait.

``where`` with a mask alone is ``nonzero``, and has another overload.
"""
REASONS = {
    aten.lift_fresh: "a tensor of numbers of the host, which is copied from pageable memory",
    aten.lift_fresh_copy: "a tensor of numbers of the host, which is copied from pageable memory",
    aten._local_scalar_dense: "a value that the host reads, for which it waits",
    aten.is_nonzero: "a value that the host reads, for which it waits",
    aten.equal: "a value that the host reads, for which it waits",
    aten.nonzero: "as many rows as the values say, for which the host waits",
    aten.masked_select: "as many rows as the values say, for which the host waits",
    aten.unique_dim: "as many rows as the values say, for which the host waits",
    aten._unique2: "as many rows as the values say, for which the host waits",
    aten.repeat_interleave: "as many rows as the values say, for which the host waits",
    aten.index: "an index, whose booleans give as many rows as the values say",
    aten._pin_memory: "memory of the host",
}
"""What is wrong with operators that are often met."""


class NotRecordableError(AssertionError):
    """An operator that a recording cannot hold."""


class Recordable(TorchDispatchMode):
    """Refuses what a recording CUDA stream refuses, whatever the device is.

    On the device "meta" tensors have no values, so that what reads one fails there as well, and
    whatever is made on the CPU is seen to be elsewhere. Not for inference mode, in which operators
    are seen before they are taken apart.

    Args:
        device: Where every tensor has to be.

    Attributes:
        kernels: Operators that launched one, in their order.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.kernels: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in VIEWS | KERNELS:
            reason = REASONS.get(packet, "not in the list of operators that were checked")
            raise NotRecordableError(f"{func}: {reason}")
        result = func(*args, **kwargs)
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor) and tensor.device.type != self.device:
                raise NotRecordableError(
                    f"{func}: a tensor on {tensor.device}, not on {self.device}"
                )
        if packet in KERNELS:
            self.kernels.append(str(func))
        return result


class Unsynchronised(TorchDispatchMode):
    """Refuses what waits for the device, and nothing else: for code that runs eagerly.

    A copy between devices waits unless it is told not to and its memory of the host is pinned.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in (aten.index, aten.index_put, aten.index_put_):
            kinds = {index.dtype for index in args[1] if index is not None}
            if kinds & {torch.bool, torch.uint8}:
                raise NotRecordableError(f"{func}: {REASONS[aten.index]}")
        elif packet in REASONS and packet not in (aten.lift_fresh, aten._pin_memory):
            raise NotRecordableError(f"{func}: {REASONS[packet]}")
        result = func(*args, **kwargs)
        if packet in (aten._to_copy, aten.copy_):
            waits = not (kwargs.get("non_blocking") or (packet is aten.copy_ and args[2:]))
            places = {tensor.device for tensor in (*args[:2], result) if isinstance(tensor, Tensor)}
            if len(places) > 1 and waits:
                raise NotRecordableError(f"{func}: a copy from {places} that is waited for")
        return result
