"""Host memory that copies of tensors lie in, one after the other; from a GPU they come as fast as its bus where the memory is pinned."""

import mmap
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PIECE = 2**28  # bytes that are pinned at once: the driver starts no kernel meanwhile
PORTABLE = 1  # cudaHostRegisterPortable: for every context, whichever thread has it pinned
APART = 64  # bytes: every tensor begins at a multiple


class HostMemory:
    def __init__(self, size: int, pinned: bool) -> None:
        """`size` in bytes. Every page is touched, so that no copy waits for one.

        Raises:
            MemoryError, OSError: where there is not so much.
            RuntimeError: where CUDA cannot pin it.
        """
        self.size, self.used, self.pinned = max(size, 1), 0, pinned
        self.mapped = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.mapped.madvise(mmap.MADV_HUGEPAGE)
        self.bytes = torch.frombuffer(self.mapped, dtype=torch.uint8)
        for piece in self.pieces(0, self.size):
            self.bytes[piece].zero_()
            if pinned:
                pin(self.bytes[piece])

    def __del__(self) -> None:
        if self.pinned:
            for piece in self.pieces(0, self.size):
                torch.cuda.cudart().cudaHostUnregister(self.bytes[piece].data_ptr())

    def pieces(self, begin: int, end: int) -> Iterator[slice]:
        """Of the bytes from begin to end: no copy may cross what was pinned at once."""
        while begin < end:
            until = min(end, (begin // PIECE + 1) * PIECE)
            yield slice(begin, until)
            begin = until

    @staticmethod
    def taken(tensor: Tensor) -> int:
        return -(-tensor.numel() * tensor.element_size() // APART) * APART

    def begin(self) -> None:
        """What lay here is overwritten from now on."""
        self.used = 0

    def copied(self, leaf: Any) -> Any:
        """A copy of a tensor with a storage of its own, whose values are there after `finish`; anything else as it is."""
        if not isinstance(leaf, Tensor) or not leaf.numel():
            return leaf
        given = leaf.detach().contiguous()
        begin, self.used = self.used, self.used + self.taken(leaf)
        flat = given.reshape(-1).view(torch.uint8)
        for piece in self.pieces(begin, begin + flat.numel()):
            self.bytes[piece].copy_(flat[piece.start - begin : piece.stop - begin], non_blocking=self.pinned)
        own = torch.frombuffer(self.mapped, dtype=torch.uint8, count=flat.numel(), offset=begin)
        return own.view(given.dtype).view(given.shape)

    def finish(self) -> None:
        if self.pinned:
            torch.cuda.synchronize()


def pin(tensor: Tensor) -> None:
    failed = int(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.numel(), PORTABLE))
    if failed:
        raise RuntimeError(f"CUDA cannot pin host memory for a checkpoint (error {failed}). Set checkpoint.background=false.")
