"""Centre codes, where training looks for them; see `models.centres`."""

from models.centres import learn_centres

__all__ = ["learn_centres"]
