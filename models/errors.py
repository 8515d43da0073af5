"""What can go wrong with a network, its files and the images it is given."""

_MOST_QUOTED = 200


def first_line(error: Exception) -> str:
    """Return what a library says, cut to a line: some quote the whole file."""
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    return said if len(said) <= _MOST_QUOTED else f"{said[:_MOST_QUOTED]} …"


class ModelError(Exception):
    """Root of every error that `models` raises on purpose."""


class BundleError(ModelError):
    """A bundle is missing, incomplete, damaged or describes itself wrongly."""


class WeightsError(ModelError):
    """A file of weights is missing, damaged or not of the kind that is needed."""


class NetworkError(ModelError):
    """The description of a network cannot be read, contradicts itself or asks for the unknown."""


class OptionError(ModelError):
    """What somebody chose cannot be used, whatever the files hold: a number, a size, a name."""


class EngineError(ModelError):
    """A network could not be opened, gave nonsense, or was used after `close`."""


class ImageError(ModelError):
    """The picture inside an image file cannot be turned into RGB pixels."""


class TrainingError(ModelError):
    """A network could not be trained: its data, its settings or its numbers are at fault."""


class Diverged(TrainingError):
    """The loss of a training run is not a number, and will not be one if it is repeated."""


class TrainingBlocked(TrainingError):
    """Training cannot begin: PyTorch or a GPU is missing, or the bundle's place is taken."""
