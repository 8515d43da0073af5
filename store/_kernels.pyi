from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION: int

def choose(
    distances: NDArray[np.uint16],
    counts: NDArray[np.int64],
    bounds: NDArray[np.int16],
    wanted: int,
    chosen: NDArray[np.bool_],
    /,
) -> int: ...
def file(
    codes: NDArray[np.uint64],
    centres: NDArray[np.uint64],
    width: int,
    keys: NDArray[np.uint32],
    distances: NDArray[np.uint16],
    /,
) -> None: ...
def count(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    code: NDArray[np.uint64],
    dead: NDArray[np.bool_] | None,
    distances: NDArray[np.uint16],
    counts: NDArray[np.int64],
    /,
) -> int: ...
def pick(
    rows: NDArray[Any],
    row_bytes: int,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    distances: NDArray[np.uint16],
    line: int,
    nearer: NDArray[np.uint64],
    level: NDArray[np.uint64],
    /,
) -> tuple[int, int]: ...
def products(
    values: NDArray[np.int8],
    slots: NDArray[np.int64],
    coarse: NDArray[np.int16],
    fine: NDArray[np.int16] | None,
    into: NDArray[np.int32],
    /,
) -> None: ...
