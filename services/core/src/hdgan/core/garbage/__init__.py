"""`hdgan gc`: removes from a store what no run, release or annotation needs any more.

roots       what is needed: read from pins, releases and annotations
judging     which objects are needed, garbage or unknown: pure functions over names
marks       since when something is known to be garbage, by the store's clock
collecting  one pass: mark, wait, look again, remove
"""
