"""One file a backend; see `base.py` for the contract."""
