"""Measures a bundle on labelled images, and tells of it: JSON, curves and a page."""
