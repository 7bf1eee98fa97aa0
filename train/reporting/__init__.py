"""What a run says: progress, curves, pictures, the report.

progress.py  lines of the log and TensorBoard
summary.py   report.html, with the charts of curves.py
pictures.py  images with points, contact sheets, drawings as files
preview/     training data to look at

The loop, the stages and the commands enter.
"""
