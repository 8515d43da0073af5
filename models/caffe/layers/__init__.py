"""The layers that lookalike can convert, by Caffe's names for them."""

from models.caffe.layers import convolution, neurons, normalisation, pooling, routing
from models.caffe.layers.kind import Kind

KINDS: dict[str, Kind] = {
    "AbsVal": neurons.ABS_VAL,
    "BNLL": neurons.BNLL,
    "BatchNorm": normalisation.BATCH_NORM,
    "Bias": normalisation.BIAS,
    "Concat": routing.CONCAT,
    "Convolution": convolution.CONVOLUTION,
    "ConvolutionDepthwise": convolution.CONVOLUTION,
    "Crop": routing.CROP,
    "Deconvolution": convolution.DECONVOLUTION,
    "DepthwiseConvolution": convolution.CONVOLUTION,
    "Dropout": neurons.DROPOUT,
    "ELU": neurons.ELU,
    "Eltwise": routing.ELTWISE,
    "Exp": neurons.EXP,
    "Flatten": routing.FLATTEN,
    "InnerProduct": convolution.INNER_PRODUCT,
    "LRN": normalisation.LRN,
    "Log": neurons.LOG,
    "PReLU": neurons.PRELU,
    "Pooling": pooling.POOLING,
    "Power": neurons.POWER,
    "ReLU": neurons.RELU,
    "ReLU6": neurons.RELU6,
    "Reshape": routing.RESHAPE,
    "Scale": normalisation.SCALE,
    "Sigmoid": neurons.SIGMOID,
    "Slice": routing.SLICE,
    "Softmax": normalisation.SOFTMAX,
    "Split": routing.SPLIT,
    "TanH": neurons.TAN_H,
}
