"""Place the boxes of a drawing: in rows from top to bottom, branches side by side, skip connections around them.

The method is Sugiyama's in its simplest form, which is sufficient for networks: nearly all are chains, branches that join
again, and skips. (The Python libraries for it are unmaintained, under the GPL, or need a newer Python than multiseg.)
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
Point = tuple[float, float]

COLUMN_GAP = 28.0
ROW_GAP = 30.0
LANE = 16.0  # width reserved for a line that passes a row
SWEEPS = 12
BOX = 8.0  # weight of a box relative to a line, and of the trunk relative to a short branch


@dataclass(frozen=True)
class Placement(Generic[T]):
    """``places``: centre (x) and top (y) of each box; ``lines``: points from the bottom of a box to the top of another."""

    width: float
    height: float
    places: dict[T, Point]
    lines: dict[tuple[T, T], list[Point]]


@dataclass(eq=False)
class _Spot(Generic[T]):
    """A box in a row, or a point where a line passes the row."""

    box: T | None
    row: int
    width: float
    above: list[_Spot[T]]
    below: list[_Spot[T]]
    x: float = 0.0
    depth: int = 0  # number of boxes on the longest path down from it


def place(boxes: Sequence[T], reads: Mapping[T, Sequence[T]], sizes: Mapping[T, tuple[float, float]]) -> Placement[T]:
    """Return the placement of boxes with ``sizes`` (width, height). ``boxes`` must be in topological order of ``reads``."""
    row: dict[T, int] = {}
    for box in boxes:
        row[box] = 1 + max((row[read] for read in reads[box]), default=-1)
    rows: list[list[_Spot[T]]] = [[] for _ in range(max(row.values()) + 1)]
    spots: dict[T, _Spot[T]] = {}
    chains: dict[tuple[T, T], list[_Spot[T]]] = {}
    for box in boxes:
        spots[box] = _Spot(box, row[box], sizes[box][0], [], [])
        rows[row[box]].append(spots[box])
        for read in reads[box]:
            lanes = [_Spot[T](None, at, LANE, [], []) for at in range(row[read] + 1, row[box])]
            for lane in lanes:
                rows[lane.row].append(lane)
            chains[read, box] = [spots[read], *lanes, spots[box]]
            for upper, lower in pairwise(chains[read, box]):
                upper.below.append(lower)
                lower.above.append(upper)
    _order(rows)
    _spread(rows)
    _straighten(rows)
    left = min(spot.x - spot.width / 2 for row in rows for spot in row)
    heights = [max((sizes[spot.box][1] for spot in row if spot.box is not None), default=0.0) for row in rows]
    tops = [sum(heights[:at]) + at * ROW_GAP for at in range(len(rows))]
    lines = {
        pair: [
            (chain[0].x - left, tops[chain[0].row] + sizes[pair[0]][1]),
            *((spot.x - left, y) for spot in chain[1:-1] for y in (tops[spot.row], tops[spot.row] + heights[spot.row])),
            (chain[-1].x - left, tops[chain[-1].row]),
        ]
        for pair, chain in chains.items()
    }
    return Placement(
        max(spot.x + spot.width / 2 for row in rows for spot in row) - left,
        tops[-1] + heights[-1],
        {box: (spot.x - left, tops[spot.row]) for box, spot in spots.items()},
        lines,
    )


def _order(rows: list[list[_Spot[T]]]) -> None:
    """Order each row to minimise crossings: sort by the mean position of neighbours, downwards and upwards in turn."""
    for row in reversed(rows):
        for spot in row:
            spot.depth = (spot.box is not None) + max((lower.depth for lower in spot.below), default=0)
    for row in rows:  # the longest branch first, passing lines last
        row.sort(key=lambda spot: (spot.box is None, -spot.depth))
    best = [list(row) for row in rows]
    fewest = _crossings(rows)
    for sweep in range(SWEEPS):
        if fewest == 0 and sweep > 1:
            break
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            centres = {spot: _centre(spot, spot.above if down else spot.below, rows) for spot in row}
            row.sort(key=centres.__getitem__)
        crossings = _crossings(rows)
        if crossings < fewest or (sweep == 0 and crossings == fewest):
            best, fewest = [list(row) for row in rows], crossings
    for row, ordered in zip(rows, best, strict=True):
        row[:] = ordered


def _centre(spot: _Spot[T], neighbours: list[_Spot[T]], rows: list[list[_Spot[T]]]) -> float:
    if not neighbours:
        return float(rows[spot.row].index(spot))
    return sum(rows[each.row].index(each) for each in neighbours) / len(neighbours)


def _crossings(rows: list[list[_Spot[T]]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        at = {spot: number for number, spot in enumerate(lower)}
        ends = [at[each] for spot in upper for each in sorted(spot.below, key=at.__getitem__)]
        total += sum(one > other for number, one in enumerate(ends) for other in ends[number + 1 :])
    return total


def _spread(rows: list[list[_Spot[T]]]) -> None:
    """Set each spot's x below its neighbours in the row above, preserving the row's order and the gaps.

    Spots that would overlap are moved together by the smallest total distance (isotonic regression, pool adjacent violators).
    The heavier a spot, the less it moves, so that the trunk of a network stays straight with branches and skips around it.
    """
    for row in rows:
        offset = 0.0
        pools: list[list[tuple[float, float]]] = []
        for number, spot in enumerate(row):
            if number:
                offset += (row[number - 1].width + spot.width) / 2 + COLUMN_GAP
            spot.x = offset  # the move of its pool is added below
            pools.append([(_wish(spot) - offset, _weight(spot))])
            while len(pools) > 1 and _median(pools[-2]) > _median(pools[-1]):
                last = pools.pop()
                pools[-1] += last
        moves = [_median(pool) for pool in pools for _ in pool]
        for spot, move in zip(row, moves, strict=True):
            spot.x += move


def _straighten(rows: list[list[_Spot[T]]]) -> None:
    """Align points of a line that passes several rows with its next point below, if there is room, so that it bends once."""
    for row in reversed(rows):
        for way, ordered in ((1.0, row[::-1]), (-1.0, row)):
            beside: _Spot[T] | None = None
            for spot in ordered:
                if spot.box is None and spot.below[0].box is None:
                    target = way * spot.below[0].x
                    if beside is not None:
                        target = min(target, way * beside.x - (beside.width + spot.width) / 2 - COLUMN_GAP)
                    spot.x = way * max(way * spot.x, target)
                beside = spot


def _wish(spot: _Spot[T]) -> float:
    """Return the preferred x: below the middle if more than two branches join, else below a box rather than a line."""
    places = [upper.x for upper in spot.above]
    if len(places) > 2:
        return (min(places) + max(places)) / 2
    return _median([(upper.x, 1.0 if upper.box is None else BOX) for upper in spot.above]) if places else 0.0


def _weight(spot: _Spot[T]) -> float:
    if spot.box is None:
        return 1.0
    beside = [each.depth for upper in spot.above for each in upper.below if each is not spot and each.box is not None]
    return BOX * (BOX if beside and spot.depth > max(beside) + 2 else 1)


def _median(weighed: list[tuple[float, float]]) -> float:
    """Return the weighted median; the middle of two values if both qualify."""
    ordered = sorted(weighed)
    half, so_far = sum(weight for _, weight in ordered) / 2, 0.0
    for number, (value, weight) in enumerate(ordered):
        so_far += weight
        if so_far == half:
            return (value + ordered[number + 1][0]) / 2
        if so_far > half:
            return value
    raise AssertionError("weights are positive")
