"""Several processes that train one network, started by ``torchrun``.

Every process works on its share of each batch. Sums are divided by counts of the whole batch and
batch normalisation takes its statistics over it, so that N processes compute, up to rounding, what
one does.
"""

from __future__ import annotations

import os
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous


def start() -> None:
    """Join the other processes, if ``torchrun`` started this one."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl"
    store, rank, size = next(rendezvous("env://"))
    # torchrun keeps one store over its restarts, and in it the addresses of processes that are
    # gone: a restarted process that is faster than its peer would wait for them for half an hour.
    store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 is the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Until every process has come this far."""
    if dist.is_initialized():
        dist.barrier()


def from_first(*values: float) -> list[float]:
    """The values that process 0 has: clocks differ, schedules must not."""
    if not dist.is_initialized():
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return [float(value) for value in shared.tolist()]


def mean_over_ranks(count: Tensor) -> Tensor:
    """A count averaged over the processes, without gradient.

    A process that divides its sum by this gets gradients whose mean over the processes, which is
    what ``DistributedDataParallel`` takes, is the gradient of the whole batch's mean.
    """
    if not dist.is_initialized():
        return count
    total = count.detach().float().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class _SumOverRanks(torch.autograd.Function):
    """Sum over the processes; every process's result depends on every process's input."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on any device.

    ``torch.nn.SyncBatchNorm`` is the same for CUDA only.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        x = input.float()
        count = x.numel() / x.shape[1]
        sums = torch.cat([x.sum(dim=(0, 2, 3)), (x * x).sum(dim=(0, 2, 3)), x.new_tensor([count])])
        sums = _SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
        channels = x.shape[1]
        mean, square, total = sums[:channels], sums[channels:-1], sums[-1].detach()
        mean, square = mean / total, square / total
        variance = (square - mean * mean).clamp(min=0)
        with torch.no_grad():
            share = cast(float, self.momentum)
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (total / (total - 1)), share)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return cast(Tensor, x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


def share_statistics(network: nn.Module) -> None:
    """Let the batch normalisations of a network see the batches of all processes."""
    if world_size() == 1:
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
