"""Records forward and backward passes as CUDA graphs, whose kernels a GPU starts together.

A small model waits for Python: starting a kernel takes longer than the kernel itself. A pass is recorded once for each
shape of its batch, and replayed from then on:

1. The first batches of a shape are computed as usual, because many shapes occur once or twice and recording takes time.
2. The next batch is copied into buffers of its own, and computed as usual a few times, to warm up.
3. The same pass is recorded. Gradients are added into buffers that all recordings share.
4. Each later batch of that shape is copied into the buffers, and the recording is replayed.

What the warm-up changed is restored, so that losses, gradients and dropout masks are those of passes that are not
recorded. Recordings share one memory pool, because none is needed once the next has begun.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

PLAIN_FIRST = 2
WARM_UP = 3  # as in torch's documentation of CUDA graphs
MOST_RECORDINGS = 64  # each holds memory
TOLERANCE = 1e-2  # between a pass and its recording, which draw the same dropout masks

# A micro-batch and its weight, float32 [] -> the loss times the weight; gradients are accumulated.
Pass = Callable[[dict[str, Any], torch.Tensor], torch.Tensor]
# A function without arguments -> its result, and the function that recomputes the result in place.
Recorder = Callable[[Callable[[], torch.Tensor]], tuple[torch.Tensor, Callable[[], None]]]


class Failed(Exception):
    """A pass cannot be recorded, or its recording computes a different result."""


class CudaGraphs:
    """Records functions as CUDA graphs with one pool of memory."""

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        gc.collect()  # remains of an earlier pass would add gradients on that pass's stream
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Only unsafe calls of this thread are errors: meanwhile another thread pins the memory of later batches.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            result = run()
        self.pool = graph.pool()
        return result, graph.replay


class Recorded:
    """A pass that is recorded once for each shape of its batch, for parameters on one device."""

    def __init__(self, forward_backward: Pass, parameters: Iterable[nn.Parameter], record: Recorder) -> None:
        self.forward_backward, self.record = forward_backward, record
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.recordings: dict[Any, tuple[list[torch.Tensor], torch.Tensor, Callable[[], None]]] = {}
        self.gradients: dict[nn.Parameter, torch.Tensor] = {}
        self.seen: Counter[Any] = Counter()

    def __call__(self, inputs: dict[str, Any], weight: torch.Tensor) -> torch.Tensor:
        """Run the pass; inputs: tensors on the parameters' device, and numbers. Failed if recording fails."""
        shapes = _shapes(inputs)
        if shapes not in self.recordings:
            self.seen[shapes] += 1
            if self.seen[shapes] <= PLAIN_FIRST or len(self.recordings) == MOST_RECORDINGS:
                return self.forward_backward(inputs, weight)
            self._record_and_restore(inputs, weight)
        buffers, loss, replay = self.recordings[shapes]
        if self.parameters[0].is_cuda and not weight.is_cuda:
            weight = weight.pin_memory()
        for buffer, tensor in zip(buffers, [*_tensors(inputs), weight], strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self._share_gradients()
        replay()
        return loss.clone()  # the next recording may overwrite it

    def _record_and_restore(self, inputs: dict[str, Any], weight: torch.Tensor) -> None:
        """Record the pass for inputs of this shape, and restore gradients and generator."""
        gradients = [parameter.grad for parameter in self.parameters]
        kept = [None if gradient is None else gradient.clone() for gradient in gradients]
        generator = _generator(self.parameters[0].device)
        state = generator.get_state()
        try:
            self._record(inputs, weight, generator)
        finally:
            generator.set_state(state)
            for parameter, gradient in zip(self.parameters, kept, strict=True):
                parameter.grad = gradient

    def _record(self, inputs: dict[str, Any], weight: torch.Tensor, generator: torch.Generator) -> None:
        state, device = generator.get_state(), self.parameters[0].device
        leaves, structure = tree_flatten(inputs)
        own = tree_unflatten([leaf.clone() if torch.is_tensor(leaf) else leaf for leaf in leaves], structure)
        own_weight = weight.to(device, torch.float32, copy=True)
        for parameter in self.parameters:
            parameter.grad = None
        expected = self._numbers(self.forward_backward(own, own_weight))
        for parameter in self.parameters:
            if parameter.grad is not None:  # AdamW skips parameters that no pass reaches
                parameter.grad = self.gradients.setdefault(parameter, torch.zeros_like(parameter))
        try:
            loss, replay = self.record(lambda: self.forward_backward(own, own_weight))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise Failed(str(error).splitlines()[0]) from error
        generator.set_state(state)
        torch._foreach_zero_(list(self.gradients.values()))
        replay()
        found = self._numbers(loss)
        largest = float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
        if not torch.allclose(found, expected, TOLERANCE, TOLERANCE * largest, equal_nan=True):
            apart = int((found - expected).abs().argmax())
            what = "loss" if apart == 0 else "norm of a gradient"
            raise Failed(f"the recorded {what} is {found[apart]:.6g}, and was {expected[apart]:.6g}")
        self.recordings[_shapes(inputs)] = [*_tensors(own), own_weight], loss, replay

    def _numbers(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss and the norm of each gradient, by which two passes are compared."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.stack([loss.float(), *(norm.float() for norm in torch._foreach_norm(gradients))])

    def _share_gradients(self) -> None:
        """Make the shared buffers the parameters' gradients, with their present values, or 0 for None."""
        fresh = [buffer for parameter, buffer in self.gradients.items() if parameter.grad is None]
        if fresh:
            torch._foreach_zero_(fresh)
        for parameter, buffer in self.gradients.items():
            if parameter.grad is not None and parameter.grad is not buffer:
                buffer.copy_(parameter.grad)
            parameter.grad = buffer


def _tensors(inputs: dict[str, Any]) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(inputs)[0] if torch.is_tensor(leaf)]


def _shapes(inputs: dict[str, Any]) -> Any:
    """Return the key of a recording: the names, shapes, dtypes and numbers of its inputs."""
    leaves, structure = tree_flatten(inputs)
    return str(structure), tuple((leaf.shape, leaf.dtype) if torch.is_tensor(leaf) else leaf for leaf in leaves)


def _generator(device: torch.device) -> torch.Generator:
    """Return torch's own generator of a device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
