"""Large blocks are given back when they are freed, whatever was freed before."""

import ctypes
import subprocess
import sys

import pytest

MAPPED = """\
import ctypes
from reloader import allocator

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
{setting}
bytearray(20 * 2**20)
before = mallinfo().hblks
block = bytearray(2**20)
print(mallinfo().hblks - before)
"""


def mapped_by_itself(setting):
    done = subprocess.run([sys.executable, "-c", MAPPED.format(setting=setting)], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library tells nothing of its heap")
def test_a_large_block_is_mapped_by_itself_though_a_larger_one_was_freed():
    assert mapped_by_itself("allocator.give_back()") == 1
    assert mapped_by_itself("") == 0
