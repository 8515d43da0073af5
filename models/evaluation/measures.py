"""Average precision, precision and recall of rankings.

Notation: a ranking is a row of K hits, and a hit is *relevant* when it has the query's class.
With P(i) the share of relevant hits among the first i, the average precision is the sum of P(i)
over the ranks i of relevant hits, divided by how many there could have been (Manning, Raghavan
and Schütze, "Introduction to Information Retrieval", 2008, section 8.4). Cut off at K there are
two readings of "could have been", and both are in use:

- *of found*: the number of relevant hits among the K, as in the code that Lin et al. published
  with "Deep Learning of Binary Hash Codes for Fast Image Retrieval" (CVPRW 2015), and in the code
  of most papers on hashing since. A ranking is not charged for what it does not find.
- *of all*: min(R, K) with R relevant images in the database. Only K relevant hits make a 1.
"""

import numpy as np
from numpy.typing import NDArray


def average_precision(
    relevant: NDArray[np.bool_], total: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the average precision at K of each ranking.

    Args:
        relevant: shape=(Q, K), dtype=bool; whether the hit at each rank is relevant.
        total: shape=(Q,); R, the relevant images in the database. Given, the result is that
            "of all", otherwise that "of found".

    Returns:
        shape=(Q,), dtype=float64, 0 to 1; 0 where nothing is relevant.
    """
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = relevant.cumsum(1) / ranks
    possible = relevant.sum(1) if total is None else np.minimum(total, relevant.shape[1])
    found: NDArray[np.float64] = (precision * relevant).sum(1) / np.maximum(possible, 1)
    return found


def mean_average_precision(
    relevant: NDArray[np.bool_], total: NDArray[np.int64] | None = None
) -> float:
    """Return the mean over the queries of `average_precision`."""
    return float(average_precision(relevant, total).mean())


def precision_curve(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the precision at every rank, as a mean over the queries.

    Args:
        relevant: shape=(Q, K), dtype=bool.

    Returns:
        shape=(K,), dtype=float64; entry i is the share of relevant hits among the first i + 1.
    """
    # Summed over the queries first: a (Q, K) array of floats is never made.
    by_rank = relevant.sum(0, dtype=np.int64)
    found: NDArray[np.float64] = by_rank.cumsum() / np.arange(1, len(by_rank) + 1) / len(relevant)
    return found


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the recall of a search: the share of the true nearest that it found.

    Args:
        found: shape=(K,), dtype=int64; ids of hits, each once; -1 where there is no hit.
        truth: shape=(K,), dtype=int64; ids of what an exhaustive search finds.
    """
    return float(np.isin(truth, found).mean())
