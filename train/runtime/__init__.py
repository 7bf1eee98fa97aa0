"""The processes that train.

process.py      environment, logging, precision and memory format of this machine
distributed.py  several processes on one batch

Everything that trains enters.
"""
