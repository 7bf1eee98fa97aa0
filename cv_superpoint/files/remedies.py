"""What to do about an error of the system."""

from __future__ import annotations

import errno

REMEDIES = {
    errno.ENOENT: "make its folder first",
    errno.ENOTDIR: "a file stands where a folder is needed; name another place",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.EEXIST: "name another place",
    errno.EACCES: "name a place that you may read and write",
    errno.EPERM: "name a place that you may read and write",
    errno.EROFS: "name a place that you may read and write",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "the file is larger than the system allows; write less, or raise the limit",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.EMFILE: "raise the number of open files: ulimit -n",
    errno.ENOMEM: "take smaller pictures, or fewer at a time",
}
"""Remedies by the error's number."""
