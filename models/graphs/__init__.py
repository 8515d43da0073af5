"""ONNX graphs cut, extended, and rewritten to fewer nodes."""
