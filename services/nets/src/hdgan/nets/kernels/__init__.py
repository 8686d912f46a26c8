"""Compiled loops for the CPU, where torch would move more memory than it computes on.

Each has a plain torch implementation elsewhere in `hdgan.nets` that says what it computes, serves
other devices, and is what its tests compare with.
"""
