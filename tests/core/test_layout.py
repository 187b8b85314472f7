from __future__ import annotations

import numpy as np
import pytest

from multiseg.errors import SettingsError
from multiseg.layout import Layout

BATCH = np.random.default_rng(2).integers(0, 256, (2, 3, 4, 5), np.uint8)
GREY = BATCH[:, :1]


@pytest.mark.parametrize("data_order", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
def test_every_pixel_lands_where_the_layout_says(data_order: str, channel_order: str) -> None:
    mean = np.array([10, 20, 30], np.float32)
    layout = Layout(data_order, channel_order, mean)
    features, labels = layout.features(BATCH), layout.labels(BATCH)
    for array in (features, labels):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
    for image, channel, row, column in np.ndindex(BATCH.shape):
        place = 2 - channel if channel_order == "BGR" else channel
        where = (image, place, row, column) if data_order == "NCHW" else (image, row, column, place)
        assert features[where] == float(BATCH[image, channel, row, column]) - mean[channel]
        assert labels[where] == BATCH[image, channel, row, column]


@pytest.mark.parametrize("data_order", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
@pytest.mark.parametrize("batch", [BATCH, GREY], ids=["rgb", "grey"])
def test_output_undoes_labels(data_order: str, channel_order: str, batch: np.ndarray) -> None:
    layout = Layout(data_order, channel_order)
    neutral = layout.output(layout.labels(batch))
    assert neutral.dtype == np.float32
    assert np.array_equal(neutral, batch)


def test_scores_of_three_classes_keep_their_order() -> None:
    layout = Layout(channel_order="BGR", colours=False)
    assert np.array_equal(layout.output(BATCH), BATCH)
    assert np.array_equal(layout.features(BATCH), BATCH[:, ::-1])


def test_grey_has_no_channel_order() -> None:
    assert np.array_equal(Layout(channel_order="BGR").features(GREY), GREY)


def test_a_mean_image_is_subtracted_pixel_by_pixel() -> None:
    mean = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    assert np.array_equal(Layout(mean=mean).features(BATCH), BATCH.astype(np.float32) - mean)


def test_a_mean_image_of_another_size_is_averaged_per_channel() -> None:
    mean = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    pixel = mean.reshape(3, -1).mean(axis=1)
    expected = BATCH - pixel.reshape(1, 3, 1, 1)
    assert np.allclose(Layout(mean=mean).features(BATCH), expected, rtol=0, atol=1e-4)


def test_float_features_keep_their_values() -> None:
    values = np.array([[[[0.5, -2.25]]]], np.float32)
    assert np.array_equal(Layout("NHWC").features(values), [[[[0.5], [-2.25]]]])


def test_the_batch_given_is_not_changed() -> None:
    values = np.ones((1, 3, 2, 2), np.float32)
    Layout(mean=np.ones(3, np.float32)).features(values)
    assert (values == 1).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="NCHW or NHWC"):
        Layout("CHW")
    with pytest.raises(SettingsError, match="RGB or BGR"):
        Layout(channel_order="GBR")
    with pytest.raises(SettingsError, match=r"\(C,\)"):
        Layout(mean=np.zeros((2, 2), np.float32))
    with pytest.raises(SettingsError, match="the mean has 1 channels, the images have 3"):
        Layout(mean=np.zeros(1, np.float32)).features(BATCH)
    for convert in (Layout().features, Layout().labels, Layout().output):
        with pytest.raises(SettingsError, match="four axes"):
            convert(BATCH[0])
