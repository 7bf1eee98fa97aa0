"""What a run says: progress, curves, pictures, the report.

progress.py  lines of the log and TensorBoard
summary.py   report.html, with the charts of curves.py
preview/     drawings and their labels to look at

The loop, the stages and the commands enter.
"""
