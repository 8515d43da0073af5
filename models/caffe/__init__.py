"""Caffe files without Caffe: prototxt and caffemodel read, checked and converted to ONNX."""
