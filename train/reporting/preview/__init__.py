"""Looking at the training data before anything is trained, and writing it to disk.

run.py      the command
dataset.py  samples and their labels as files

``train.reporting.pictures`` draws.
"""
