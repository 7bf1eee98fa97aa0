"""The face of ``cv2.Feature2D``: OpenCV's types in, OpenCV's types out.

feature2d.py   SuperPointFeature2D
call_forms.py  every form in which OpenCV's methods are called
parameters.py  getters and setters
options.py     what a detector is made of, for commands that make one later
storage.py     parameters in ``cv2.FileStorage`` files
pickling.py    detectors for other processes

Programs enter, and the rooms above: interop, extract, evaluation, viewer, cli.
"""
