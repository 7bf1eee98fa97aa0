"""Pictures: arrays, and what files hold.

arrays.py        checks of arrays, grey conversion, padding to the network's grid
conversions.py   what an error tells of an array that is no uint8
depth.py         deep, signed and floating values to 8 bits
reading.py       files to arrays, and back
pixels.py        the bytes of a file to pixels
orientation.py   one rule for the orientation that a file records
completeness.py  whether a file holds all of its rows
video_length.py  whether a film ends before it says
containers.py    the parts of files, found without decoding

Everything above files enters: the detector for arrays, commands and runs for files.
"""
