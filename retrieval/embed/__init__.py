"""One file a backend; see `base.py` for the contract."""

import os

# Read when torch loads its thread pool, so it is set before any backend is imported: threads that
# spin while they wait make a shared machine crawl. Measured with other programs on the same two
# cores: 80 questions in 73 s spinning, 16 s sleeping; no difference on a quiet machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
