"""Threads that Python does not know, for the audit to find."""

from __future__ import annotations

import ctypes
import mmap

CODE: list[mmap.mmap] = []  # of threads that run to the end of the process


def start_native(name: bytes = b"", code: bytes = b"") -> None:
    """Start a thread that runs no Python: pause(2), which never returns, or machine code."""
    libc = ctypes.CDLL(None, use_errno=True)
    ident = ctypes.c_ulong()
    libc.pthread_setname_np.argtypes = [ctypes.c_ulong, ctypes.c_char_p]
    function = ctypes.cast(libc.pause, ctypes.c_void_p)
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    if code:
        memory.write(code)
        CODE.append(memory)
        function = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    assert libc.pthread_create(ctypes.byref(ident), None, function, None) == 0
    if name:
        assert libc.pthread_setname_np(ident, name) == 0
