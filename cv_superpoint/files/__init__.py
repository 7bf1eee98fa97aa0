"""Files and folders: the only place that lists pictures, writes files and compares paths.

writing.py   a file takes its place when it is whole, or not at all
sink.py      a file for libraries that do not survive an error of writing
entries.py   one entry of a folder: is it a file, and its bytes
listing.py   the pictures that a user names, and what is left out and why
fingerprint.py  whether a file is still the one that was read
guard.py     no output takes the place of an input
remedies.py  what to do about an error of the system
names.py     which names can be stored, and how they are shown
formats.py   what a file is by its first bytes, and the mark of pictures that we drew
"""

from cv_superpoint.files.writing import WriteError, replace_file, replacing, write_file

__all__ = ["WriteError", "replace_file", "replacing", "write_file"]
