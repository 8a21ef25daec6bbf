"""The process that reads and screens a large file: python -m dispatcher.sources.reader, its job on stdin."""

import gc
import pickle
import sys
from contextlib import suppress

from dispatcher.sources.blocks import send_blocks

if __name__ == "__main__":
    gc.disable()  # no record is part of a cycle
    with suppress(BrokenPipeError):  # the loader has ended
        send_blocks(pickle.load(sys.stdin.buffer), sys.stdout.buffer)
