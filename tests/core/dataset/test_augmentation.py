"""Augmentation: input and target move together, by numbers that depend on seed, epoch and position alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from multiseg.cli import main
from multiseg.dataset.augmentation import OPTIONS, Augmentation, Augmented
from multiseg.dataset.feed import batches, epoch_order
from multiseg.errors import SettingsError

INDICES = np.arange(40)


def pictures(shape: tuple[int, ...] = (40, 1, 32, 32)) -> Any:
    """Smooth blots, whose places can be found again."""
    draw = np.random.default_rng(1)
    y, x = np.mgrid[: shape[2], : shape[3]]
    middles = draw.uniform(10, 22, (shape[0], 2))
    blots = [255 * np.exp(-((x - mx) ** 2 + (y - my) ** 2) / 18) for mx, my in middles]
    return np.repeat(np.stack(blots)[:, None], shape[1], axis=1).round().astype(np.uint8)


def middle(picture: Any) -> Any:
    """Centre of mass (x, y) relative to the picture's middle."""
    y, x = np.mgrid[: picture.shape[1], : picture.shape[2]]
    mass = picture[0].astype(float)
    size = np.array([picture.shape[2], picture.shape[1]])
    return np.array([(x * mass).sum(), (y * mass).sum()]) / mass.sum() - (size - 1) / 2


def changed(settings: dict[str, Any], images: Any, seed: int = 1, epoch: int = 0) -> tuple[Any, Any]:
    return Augmented(Augmentation.of(settings), seed, epoch)(images, images.copy(), INDICES[: len(images)])


def test_off_by_default() -> None:
    assert not Augmentation().changes and Augmentation().to_json() == {}
    images = pictures()
    features, labels = changed({}, images)
    assert np.array_equal(features, images) and np.array_equal(labels, images)


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "both"])
def test_flips_turn_about_half_over_and_both_together(flip: str) -> None:
    images = pictures()
    features, labels = changed({"flip": flip}, images)
    assert np.array_equal(features, labels)
    kinds = {"": images, "h": images[..., ::-1], "v": images[..., ::-1, :], "hv": images[..., ::-1, ::-1]}
    found = [
        next(name for name, kind in kinds.items() if np.array_equal(feature, kind[i]))
        for i, feature in enumerate(features)
    ]
    assert set(found) == {"horizontal": {"", "h"}, "vertical": {"", "v"}, "both": {"", "h", "v", "hv"}}[flip]


def test_quarter_turns_are_exact() -> None:
    images = pictures()
    features, labels = changed({"quarter_turns": True}, images)
    assert np.array_equal(features, labels)
    turns = [
        next(k for k in range(4) if np.array_equal(feature, np.rot90(image, k, (1, 2))))
        for feature, image in zip(features, images, strict=True)
    ]
    assert set(turns) == {0, 1, 2, 3}


def test_rotation_turns_about_the_middle_by_no_more_than_asked_for() -> None:
    images = pictures()
    features, labels = changed({"rotation": 60}, images)
    angles = []
    for image, feature, label in zip(images, features, labels, strict=True):
        before, after = middle(image), middle(feature)
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=0.3)
        assert middle(label) == pytest.approx(after, abs=0.3)  # input and target together
        if np.linalg.norm(before) > 3:
            angles.append(np.degrees(np.angle(complex(*after) / complex(*before))))
    assert max(np.abs(angles)) <= 64 and max(angles) > 20 and min(angles) < -20


def test_translation_moves_by_parts_of_the_size() -> None:
    images = pictures()
    features, labels = changed({"translation": 0.125}, images)
    moved = np.array([middle(feature) - middle(image) for feature, image in zip(features, images, strict=True)])
    assert np.abs(moved).max() <= 4.2 and np.abs(moved).max(axis=0).min() > 2.5  # an eighth of 32
    assert np.array([middle(label) for label in labels]) == pytest.approx(
        np.array([middle(f) for f in features]), abs=0.5
    )


def test_scale_spreads_by_a_factor_either_way() -> None:
    images = pictures()
    features, _ = changed({"scale": 0.25}, images)
    factors = [
        np.linalg.norm(middle(f)) / np.linalg.norm(middle(i))
        for f, i in zip(features, images, strict=True)
        if np.linalg.norm(middle(i)) > 3
    ]
    assert 1 / 1.3 < min(factors) < 0.9 and 1.1 < max(factors) < 1.3


def test_nothing_comes_into_view_but_the_borders_pixels() -> None:
    plain = np.full((40, 3, 20, 30), 77, np.uint8)
    features, labels = changed({"rotation": 180, "scale": 1.0, "translation": 0.5}, plain)
    assert (features == 77).all() and (labels == 77).all()


def test_targets_keep_their_values() -> None:
    images = np.where(pictures() > 100, 255, 0).astype(np.uint8)
    features, labels = changed({"rotation": 45, "scale": 0.3}, images)
    assert set(np.unique(labels)) == {0, 255}
    assert len(np.unique(features)) > 10  # interpolated


def test_labels_of_another_size_move_in_proportion() -> None:
    images = pictures()
    small = images[:, :, ::2, ::2]
    features, labels = Augmented(Augmentation.of({"rotation": 90, "translation": 0.1}), 1, 0)(images, small, INDICES)
    assert labels.shape == small.shape
    for feature, label in zip(features, labels, strict=True):
        assert 2 * middle(label) == pytest.approx(middle(feature), abs=1.2)


def test_noise_is_the_inputs_alone_and_has_its_deviation() -> None:
    images = np.full((40, 1, 32, 32), 128, np.uint8)
    features, labels = changed({"noise": 10}, images)
    assert np.array_equal(labels, images)
    assert features.astype(float).std() == pytest.approx(10, rel=0.02)
    assert changed({"noise": 500}, images)[0].dtype == np.uint8
    floats = images.astype(np.float32)
    assert changed({"noise": 10, "rotation": 10}, floats)[0].dtype == np.float32


def test_noise_does_not_clip_values_of_more_than_8_bits() -> None:
    """Depths of 500 to 3400 with noise of one unit stay within a few units of themselves."""
    from multiseg import augmentation  # the earlier name of the module

    assert augmentation.Augmentation is Augmentation
    depths = np.random.default_rng(1).uniform(500, 3400, (4, 1, 16, 16)).astype(np.float32)
    noisy, _ = changed({"noise": 1}, depths)
    assert noisy.dtype == np.float32
    assert 0.5 < float((noisy - depths).std()) < 1.5
    negative, _ = changed({"noise": 0.001}, -depths)
    assert np.abs(negative + depths).max() < 0.1


def test_what_is_drawn_depends_on_seed_epoch_and_position_alone() -> None:
    images, settings = pictures(), {"flip": "both", "quarter_turns": True, "rotation": 20, "noise": 3}
    whole, _ = changed(settings, images)
    order = epoch_order(40, 3, 0)
    change = Augmented(Augmentation.of(settings), 1, 0)
    for part in (order[:7], order[7:]):
        features, _ = change(images[part], images[part], part)
        assert np.array_equal(features, whole[part])
    assert not np.array_equal(changed(settings, images, seed=2)[0], whole)
    assert not np.array_equal(changed(settings, images, epoch=1)[0], whole)


def test_the_feed_changes_what_it_reads(dataset: Any) -> None:
    change = Augmented(Augmentation.of({"flip": "both", "rotation": 15}), 1, 0)
    with batches(dataset.train, 16, change=change) as feed:
        batch = next(feed)
    features, labels = dataset.train.read(range(16))
    expected = change(features, labels, np.arange(16))
    assert np.array_equal(batch.features, expected[0].astype(np.float32))
    assert batch.labels is not None and np.array_equal(batch.labels, expected[1].astype(np.float32))


def test_the_command_line_names_every_option() -> None:
    help_text = " ".join(CliRunner().invoke(main, ["train", "--help"]).output.split())
    for name, option in OPTIONS.items():
        assert f"{name}={option.example}" in help_text


@pytest.mark.parametrize("scale", [[2, 0.5], [0, 1], [1], [0.5, 1, 2], ["a", 2], True, -1, None])
def test_ranges_of_scale_that_are_none_are_refused(scale: Any) -> None:
    with pytest.raises(
        SettingsError, match=r"augment: scale=.*: must be a number from 0, or the smallest and the largest"
    ):
        Augmentation.of({"scale": scale})


def test_a_pair_of_factors_is_the_range_of_a_number() -> None:
    """Scale 1 draws from 1/2 to 2, as (0.5, 2) does."""
    images = pictures()
    assert np.array_equal(changed({"scale": 1.0}, images)[0], changed({"scale": (0.5, 2.0)}, images)[0])
    assert Augmentation.of({"scale": (0.5, 2.0)}).to_json() == {"scale": [0.5, 2.0]}


def test_quarter_turns_of_oblong_images_and_bad_values_are_refused() -> None:
    problems = Augmentation(quarter_turns=True).misfits((1, 32, 16), (1, 32, 16))
    assert str(SettingsError(*problems)) == "augment: quarter_turns: needs square images, not 16x32"
    with pytest.raises(SettingsError) as caught:
        Augmentation.of({"flip": "up", "rotation": 190, "translation": -1, "scale": "x", "quarter_turns": 1, "zoom": 2})
    for words in ("flip='up'", "rotation=190", "translation=-1", "scale='x'", "quarter_turns=1", "no 'zoom'"):
        assert words in str(caught.value)
