"""Threads that compute on one core each: what is faster for small networks than all cores on one layer."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch

FEW = 8  # texts that are encoded on one core: all cores are a little faster, but stall what is computed on one next


@cache
def workers() -> ThreadPoolExecutor:
    """One thread per core. A task must not wait for another task of this pool."""
    return ThreadPoolExecutor(torch.get_num_threads(), "refocus", initializer=partial(torch.set_num_threads, 1))


if hasattr(os, "register_at_fork"):  # a forked process has no threads: it makes its own
    os.register_at_fork(after_in_child=workers.cache_clear)
