"""The C library's allocator, told that what was freed will be wanted again."""

import ctypes

# Of glibc's malloc.h. A block of as much as LARGEST gets pages of its own from the system, all others share a
# heap, whose end goes back when so much of it is free. Setting either ends glibc's guessing of both.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST, KEPT = 32 << 20, 1 << 30  # bytes; 32 MiB is the most that glibc takes


def keep_freed_memory() -> bool:
    """Of the whole process, up to a GiB. False where the C library cannot be told, as outside of Linux.

    Otherwise every large tensor of a step or tile comes as fresh pages, zeroed one by one at their first
    touch, and goes with the tensor: a tenth of the time of a small video.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT))
