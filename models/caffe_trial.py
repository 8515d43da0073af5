"""Run as a child process: loads a network into Caffe and runs one picture through it."""

from __future__ import annotations

import sys

from models.caffe_runtime import import_caffe, use_device


def main() -> None:
    """Take the paths of prototxt and weights, the input blob, its side and the device."""
    prototxt, weights, blob, side, device = sys.argv[1:]
    caffe = import_caffe()
    use_device(caffe, device)
    net = caffe.Net(prototxt, caffe.TEST, weights=weights)
    net.blobs[blob].reshape(1, 3, int(side), int(side))
    net.reshape()
    net.forward()


if __name__ == "__main__":
    main()
