"""The engine that runs a bundle's Caffe form by real Caffe."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from models.caffe_runtime import BlasThreads, import_caffe, try_out, use_device
from models.engine import Engine
from models.errors import BundleError, EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Bundle, CaffeFiles


class CaffeEngine(Engine):
    """One Caffe network. Calls of several threads run one after the other.

    Caffe keeps Python's interpreter lock while it computes, so other threads of the process wait
    meanwhile.
    """

    def __init__(self, bundle: Bundle, *, threads: int, device: str = "cpu") -> None:
        self._files = _caffe_files(bundle)
        super().__init__(bundle, self._files.weights)
        self._device = device
        self._caffe = import_caffe()
        try_out(self._files, side_px=bundle.preprocess.input_px, device=device)
        self._threads = BlasThreads(threads)
        self._lock = threading.Lock()
        self._net: Any = self._load()
        self._check_signature()

    def _load(self) -> Any:
        use_device(self._caffe, self._device)
        return self._caffe.Net(
            str(self._files.prototxt), self._caffe.TEST, weights=str(self._files.weights)
        )

    def _run(self, planes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with self._lock:
            if self._net is None:
                raise EngineError(
                    f"the engine of bundle {self.bundle.name} is closed; open a new one"
                )
            if len(planes):
                self._forward(planes)
            return self._outputs(len(planes))

    def _forward(self, planes: NDArray[np.float32]) -> None:
        use_device(self._caffe, self._device)
        self._threads.apply()
        self._fit(len(planes))
        self._net.blobs[self._files.input_name].data[...] = planes
        self._net.forward()

    def _outputs(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        none = np.empty((count, 0), np.float32)
        features = self._rows(self._files.feature_name, count)
        return features, self._rows(self._files.latent_name, count) if self.bundle.bits else none

    def close(self) -> None:
        """Free the network, after a call under way in another thread."""
        with self._lock:
            self._net = None

    def _fit(self, count: int) -> None:
        """Make the network's blobs large enough for so many images."""
        blob = self._net.blobs[self._files.input_name]
        side = self.bundle.preprocess.input_px
        if tuple(blob.shape) != (count, 3, side, side):
            blob.reshape(count, 3, side, side)
            self._net.reshape()

    def _rows(self, name: str, count: int) -> NDArray[np.float32]:
        values = self._net.blobs[name].data
        # A copy, for the blob is overwritten by the next call and freed with the network.
        return np.array(values[:count], np.float32).reshape(count, values[:1].size)

    def _check_signature(self) -> None:
        files, bundle = self._files, self.bundle
        self._fit(1)
        sizes = {files.feature_name: bundle.dims}
        if bundle.bits:
            sizes[files.latent_name] = bundle.bits
        for name, size in sizes.items():
            if name not in self._net.blobs:
                raise BundleError(
                    f"{files.prototxt} has no blob {name!r} (it has "
                    f"{', '.join(self._net.blobs)}); correct the names in bundle.toml"
                )
            if (found := self._rows(name, 1).shape[1]) != size:
                raise BundleError(
                    f"{files.prototxt}: blob {name!r} holds {found} values an image, bundle.toml "
                    f"says {size}; correct the sizes in bundle.toml"
                )


def _caffe_files(bundle: Bundle) -> CaffeFiles:
    if bundle.caffe is None:
        raise EngineError(
            f"bundle {bundle.name} has no Caffe form ({bundle.path} holds no deploy.prototxt and "
            "weights.caffemodel); use the engine onnx"
        )
    for path in (bundle.caffe.prototxt, bundle.caffe.weights):
        if not path.is_file():
            raise BundleError(f"cannot read {path}; the bundle is incomplete, get it again")
    return bundle.caffe
