"""Looking at the training data before anything is trained, and writing it to disk."""

from train.reporting.preview.pictures import Picture, save_drawings, shapes_sheet, with_points

__all__ = ["Picture", "save_drawings", "shapes_sheet", "with_points"]
