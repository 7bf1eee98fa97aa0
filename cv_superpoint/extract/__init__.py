"""Features of many images: decode in processes, run in batches, write in shards.

plan.py       which images, in which shards, with which options; what is done already
work.py       one process: pictures in, finished shards out
precision.py  8 bits are named, and not mixed with others
cluster.py    the same work on a Ray cluster
store.py      a shard as a file; all shards as one HDF5 file in hloc's layout
run.py        the whole run
"""

from cv_superpoint.extract.plan import ExtractConfig, ExtractError
from cv_superpoint.extract.run import Report, extract_folder

__all__ = ["ExtractConfig", "ExtractError", "Report", "extract_folder"]
