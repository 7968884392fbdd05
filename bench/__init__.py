"""Figures, measured in one run on this machine: medians and ratios. `make bench` or `python -m bench [NAME…]`."""
