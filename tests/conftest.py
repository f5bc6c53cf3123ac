"""One thread for each test process: the suite runs one process a core, and sums on a CPU depend on the thread count in
their last bits.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; inherited by the scripts that tests start
