"""A function of tensors on a device: recorded where its shapes come again, begun without waiting.

Recorded, all kernels of a call are one launch. What goes up and comes down passes through pinned
memory that later calls use again.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

MOST_GRAPHS = 8
"""Shapes that are remembered; the one not used for longest goes first."""
_MOST_BUFFERS = 4 * MOST_GRAPHS
"""Pinned buffers that wait for another use; the one not used for longest goes first."""

Work = Callable[..., Tensor]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Recording:
    """A function recorded for one shape.

    Attributes:
        inputs: Tensors on the device that every replay reads.
        output: Tensor on the device that every replay writes.
        replay: Computes ``output`` from ``inputs``, in the order of the current stream.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], Any]


class HostBuffers:
    """Memory of the host that a device copies from and to, kept for the next call.

    Args:
        pin: Whether to take pinned memory; that takes longer than to copy into it.
    """

    def __init__(self, *, pin: bool) -> None:
        self._pin = pin
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, like: Tensor) -> Tensor:
        """A buffer of this shape and type that no other call uses."""
        with self._lock:
            for index in reversed(range(len(self._free))):
                if self._free[index].shape == like.shape and self._free[index].dtype == like.dtype:
                    return self._free.pop(index)
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=self._pin)

    def give_back(self, buffers: tuple[Tensor, ...]) -> None:
        """Take back buffers that nothing reads or writes any more."""
        with self._lock:
            self._free = [*self._free, *buffers][-_MOST_BUFFERS:]


@dataclass(frozen=True)
class Pending:
    """A call that was begun."""

    _answer: Tensor
    _staged: tuple[Tensor, ...]
    _buffers: HostBuffers
    _done: Any

    def read(self, take: Callable[[Tensor], Result]) -> Result:
        """Wait for the end, once.

        Args:
            take: What is wanted of the answer, a tensor on the host; later calls overwrite it, so
                it copies what it keeps.
        """
        if self._done is not None:
            self._done.synchronize()
        result = take(self._answer)
        self._buffers.give_back((self._answer, *self._staged))
        return result


@dataclass
class _Seen:
    """A shape that came once, or one that cannot be recorded."""

    recordable: bool = True


class GraphCache:
    """Runs functions on a device, through CUDA graphs where their shapes come again.

    A shape that comes once runs as it is: to record it would take longer than to run it. Calls
    from several threads follow one another in one stream, so that no graph's memory is
    overwritten while it is read. All graphs share the memory of what they compute in between.

    Args:
        device: Where functions run.
        record: Function that makes a :class:`Recording` of a function and inputs on the device;
            None records CUDA graphs on a CUDA device, and nothing elsewhere.
    """

    def __init__(
        self,
        device: torch.device,
        record: Callable[[Work, tuple[Tensor, ...]], Recording] | None = None,
    ) -> None:
        self._device = device
        self._on_cuda = device.type == "cuda"
        self._record = record or (self._capture if self._on_cuda else None)
        self._graphs: OrderedDict[Hashable, Recording | _Seen] = OrderedDict()
        self._lock = threading.Lock()
        self._buffers = HostBuffers(pin=self._on_cuda)
        # Made when first used: a process that only makes a detector takes no memory of the GPU.
        self._stream: Any = None
        self._pool: Any = None

    def __len__(self) -> int:
        """Graphs that are held."""
        return sum(isinstance(one, Recording) for one in self._graphs.values())

    def start(self, key: Hashable, function: Work, inputs: tuple[Tensor, ...]) -> Pending:
        """Begin ``function(*inputs)``.

        Args:
            key: All that the function depends on but its inputs.
            function: Function of tensors that never synchronises and has no shape that values
                decide.
            inputs: Arrays on the host; they may change as soon as this returns.

        Raises:
            torch.OutOfMemoryError: If the device has not enough.
        """
        key = (key, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        with self._lock, torch.inference_mode(), self._queue():
            graph = self._recording(key, function, inputs)
            staged = tuple(self._buffers.take(tensor).copy_(tensor) for tensor in inputs)
            if graph is None:
                output = function(
                    *(one.to(self._device, non_blocking=self._on_cuda) for one in staged)
                )
            else:
                for target, value in zip(graph.inputs, staged, strict=True):
                    target.copy_(value, non_blocking=self._on_cuda)
                graph.replay()
                output = graph.output
            answer = self._buffers.take(output).copy_(output, non_blocking=self._on_cuda)
            done = None if self._stream is None else self._stream.record_event()
        return Pending(answer, staged, self._buffers, done)

    def clear(self) -> bool:
        """Free what all graphs hold; whether there were any."""
        with self._lock:
            held = len(self) > 0
            self._forget(0)
            if self._on_cuda:
                torch.cuda.empty_cache()
            return held

    def _forget(self, most: int) -> None:
        """Keep the shapes that came last, so many at most."""
        if len(self._graphs) > most and self._stream is not None:
            self._stream.synchronize()  # a graph may still run
        while len(self._graphs) > most:
            self._graphs.popitem(last=False)

    def _recording(
        self, key: Hashable, function: Work, inputs: tuple[Tensor, ...]
    ) -> Recording | None:
        """The graph of a key that was seen before; None to run the function as it is."""
        if self._record is None:
            return None
        known = self._graphs.pop(key, None)
        if known is None:
            self._forget(MOST_GRAPHS - 1)
            self._graphs[key] = _Seen()
            return None
        if isinstance(known, _Seen) and known.recordable:
            known = self._recorded(self._record, function, inputs)
        self._graphs[key] = known
        return known if isinstance(known, Recording) else None

    def _recorded(
        self,
        record: Callable[[Work, tuple[Tensor, ...]], Recording],
        function: Work,
        inputs: tuple[Tensor, ...],
    ) -> Recording | _Seen:
        try:
            return record(function, tuple(one.to(self._device, copy=True) for one in inputs))
        except torch.OutOfMemoryError:
            return _Seen(recordable=False)  # as it is it may fit, since it frees while it runs
        except Exception as error:
            # Whatever it is, the function itself may work; if not, it says so itself.
            self._record = None
            warnings.warn(
                f"no CUDA graph could be recorded on {self._device} ({error}); every kernel is "
                "launched on its own, which takes longer. Please report it",
                RuntimeWarning,
                stacklevel=2,
            )
            return _Seen(recordable=False)

    @contextmanager
    def _queue(self) -> Iterator[None]:
        """All work in one stream of its own: recording is not possible in the default one."""
        if not self._on_cuda:
            yield
            return
        with torch.cuda.device(self._device):
            if self._stream is None:
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.stream(self._stream):
                yield

    def _capture(self, function: Work, inputs: tuple[Tensor, ...]) -> Recording:
        """Record a CUDA graph in the current stream."""
        # Libraries make what they need of memory at their first call in a thread.
        function(*inputs)
        if not len(self):  # memory that no graph shares any more cannot be shared again
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # The stream is given since torch's own for all recordings is on the first device that
        # recorded. "thread_local": other threads may allocate memory meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            output = function(*inputs)
        return Recording(inputs, output, graph.replay)
