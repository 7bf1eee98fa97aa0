"""Features of many images: decode in processes, run in batches, write in shards.

plan.py       which images, in which shards, with which options; what is done already
work.py       one process: pictures in, finished shards out
precision.py  8 bits are named, and not mixed with others
cluster.py    the same work on a Ray cluster
store.py      a shard as a file; all shards as one HDF5 file in hloc's layout
run.py        the whole run
pairs.py      which pictures are matched with which
matches.py    their matches, to hloc's layout and COLMAP's database
parts.py      these matches on the disk
"""

from cv_superpoint.extract.matches import MatchConfig, MatchReport, match_images
from cv_superpoint.extract.plan import ExtractConfig, ExtractError
from cv_superpoint.extract.run import Report, extract_folder

__all__ = [
    "ExtractConfig",
    "ExtractError",
    "MatchConfig",
    "MatchReport",
    "Report",
    "extract_folder",
    "match_images",
]
