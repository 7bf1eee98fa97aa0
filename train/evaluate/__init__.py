"""Evaluation of detectors under named protocols; docs/evaluation.md describes them."""
