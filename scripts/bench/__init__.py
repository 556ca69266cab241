"""The measurements behind ``scripts/bench.py``, one subject a module."""
