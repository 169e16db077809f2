"""One thread for all tests: the same numbers everywhere, and no spinning on a busy machine.

On two busy cores a small network trains twenty times slower with two threads than with one.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
