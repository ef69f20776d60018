"""What the C library's allocator does with memory that was freed: it is to give it back, and not keep a share of it for each thread."""

import ctypes

LARGE = 128 * 1024
"""Bytes from which on a block is mapped by itself, and so unmapped when it is freed."""
ARENAS = 2
"""How many heaps there are at most; by default each thread gets one, up to eight for each core."""

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # malloc.h of glibc


def give_back() -> None:
    """Have the allocator do that; nothing happens where it has no such settings (musl).

    `LARGE` is the default, but glibc raises it to the largest block that was ever freed, up to 32 MiB: after one answer of 1 MiB, all
    such blocks come from heaps, whose holes stay. With 10,000 keys of Consul that is a fifth of all that is resident.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
        mallopt(_ARENA_MAX, ARENAS)
