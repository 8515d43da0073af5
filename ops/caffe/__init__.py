"""Builds Caffe 1.0 with its Python interface into a wheel, keeps it, and installs it."""
