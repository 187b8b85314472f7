"""The layers compared for many images, one batch at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from multiseg.errors import SettingsError
from multiseg.parity.images import count_of
from multiseg.parity.rows import ParityRow
from multiseg.reference import Bounded


@pytest.mark.parametrize("not_a_number", [False, True])
def test_rows_of_batches_joined_are_the_row_of_all_images(not_a_number: bool) -> None:
    draw = np.random.default_rng(2)
    value = draw.normal(size=(7, 2, 5, 4))
    bound = draw.uniform(1e-3, 2e-3, value.shape)
    measured = value + bound * draw.uniform(-0.9, 0.9, value.shape)
    if not_a_number:
        measured[5, 1, 2, 3] = np.nan
    whole = ParityRow.of("side", "forward", "name", Bounded(value, bound), measured)
    joined: ParityRow | None = None
    for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
        row = ParityRow.of("side", "forward", "name", Bounded(value[part], bound[part]), measured[part])
        assert row.worst is not None
        row = replace(row, images=len(value[part]), image=part.start + row.worst[0])
        joined = row if joined is None else joined.joined(row)
    assert joined is not None and whole.worst is not None
    assert (joined.images, joined.image, joined.worst[1:] if joined.worst else None) == (
        7,
        whole.worst[0],
        whole.worst[1:],
    )
    assert (joined.verdict, joined.not_finite, joined.histogram) == (whole.verdict, whole.not_finite, whole.histogram)
    assert joined.share == whole.share
    if not not_a_number:
        assert (joined.absolute, joined.tolerance) == (whole.absolute, whole.tolerance)
        assert joined.mean == pytest.approx(whole.mean)


def test_the_number_of_images() -> None:
    assert [count_of(images, 90) for images in (None, 1, 200, "all")] == [0, 1, 90, 90]
    for wrong in (0, -1, True, "some", 1.5):
        with pytest.raises(SettingsError, match="must be a number of images of at least 1, or 'all'"):
            count_of(wrong, 90)  # type: ignore[arg-type]
