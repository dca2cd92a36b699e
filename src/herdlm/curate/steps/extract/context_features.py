"""The features of a block for the second forest: what the first one says of the block and its surroundings."""

from __future__ import annotations

import numpy as np

from herdlm.curate.steps.extract.block_statistics import BlockStatistics, Floats, Ints, running
from herdlm.curate.steps.extract.features import LEVELS, Column, at_distance, to_nearest

SURE = 0.7
ROUNDING = 1 << 24


def context_features(stats: BlockStatistics, left: Ints, rows: Floats, chance: Floats) -> Floats:
    """Return features for the second forest: ``rows``, and the first forest's ``chance`` of a block and what is around.

    The weight of a block is its words. Surroundings leave the block itself out. Weighted chances are rounded to
    multiples of 2^-24, so that their sums are as exact as those of words.
    """
    page = stats.page[left]
    start, stop = stats.start[page], stats.stop[page]
    path = stats.path[stats.at]
    all_words = stats.words.astype(np.float64)
    all_mass = np.rint(chance * all_words * ROUNDING) / ROUNDING
    words, mass, chances = all_words[left], all_mass[left], chance[left]
    sum_words, sum_mass = running(all_words), running(all_mass)
    box_words, box_mass = sum_words[stats.last] - sum_words[stats.first], sum_mass[stats.last] - sum_mass[stats.first]
    total = np.maximum(box_mass[stats.document], 1)[page]
    columns: list[Column] = [chances, chances / np.maximum(stats.page_maxima(chance), 1e-3)[page]]
    box = stats.at[left]
    for _ in range(LEVELS + 1):
        columns += [
            box_mass[box] / np.maximum(box_words[box], 1),
            box_mass[box] / total,
            (box_mass[box] - mass) / np.maximum(box_words[box] - words, 1),
        ]
        box = stats.parent[box]
    path_words = np.bincount(path, weights=all_words)[path[left]]
    path_mass = np.bincount(path, weights=all_mass)[path[left]]
    columns += [(path_mass - mass) / np.maximum(path_words - words, 1), path_mass / total]
    for reach in (1, 2, 4, 8, 16):
        low, high = np.maximum(left - reach, start), np.minimum(left + reach + 1, stop)
        columns += [
            (sum_mass[end] - sum_mass[begin]) / np.maximum(sum_words[end] - sum_words[begin], 1)
            for begin, end in ((low, left), (left + 1, high))
        ]
    before = sum_mass[left] - sum_mass[start]
    columns += [
        before / total,
        (total - before - mass) / total,
        np.log1p(total),
        total / np.maximum(box_words[stats.document], 1)[page],
    ]
    for distance in (-3, -2, -1, 1, 2, 3):
        columns += at_distance(distance, left, start, stop, (chance,))
    since, until = to_nearest(chance > SURE, stats, left)
    for distances, inside in ((since, left - start), (until, stop - left - 1)):
        columns.append(np.log1p(np.where(distances <= inside, np.minimum(distances, 50), 50)))
    return np.hstack([np.array(columns, np.float32).T, rows])
