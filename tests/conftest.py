"""No network, and one thread for all tests: the same numbers everywhere, no spinning.

On two busy cores a small network trains twenty times slower with two threads than with one.
"""

import os

from phoenix_pipeline.offline import stay_offline

os.environ.setdefault("OMP_NUM_THREADS", "1")
stay_offline()
