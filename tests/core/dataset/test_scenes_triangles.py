from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.errors import DatasetError, SettingsError


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_folders_names_and_sizes_are_the_tutorials(tmp_path: Path) -> None:
    out = multiseg.create_images(tmp_path / "out", count=12, size=20, grid=3, seed=1)
    names = [f"{index:08d}.png" for index in range(12)]
    assert out == tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["grid.png", "input", "target"]
    for kind in ("input", "target"):
        assert sorted(path.name for path in (out / kind).iterdir()) == names
        with Image.open(out / kind / names[0]) as image:
            assert (image.mode, image.size) == ("L", (20, 20))
    with Image.open(out / "grid.png") as image:
        assert (image.mode, image.size) == ("L", (60, 60))


def test_the_target_is_the_input_filled(tmp_path: Path) -> None:
    out = multiseg.create_images(tmp_path / "out", count=50, seed=2)
    areas = 0
    for path in sorted((out / "input").iterdir()):
        outline, area = np.asarray(Image.open(path)), np.asarray(Image.open(out / "target" / path.name))
        assert set(np.unique(outline)) <= {0, 255}
        assert set(np.unique(area)) <= {0, 255}
        assert (area[outline == 0] == 0).all()
        rows, columns = np.nonzero(outline == 0)
        assert (area[: rows.min()] == 255).all()
        assert (area[rows.max() + 1 :] == 255).all()
        assert (area[:, : columns.min()] == 255).all()
        areas += int((area == 0).sum() > (outline == 0).sum())
    assert areas > 35


def test_corners_are_spread_over_the_whole_image(tmp_path: Path) -> None:
    out = multiseg.create_images(tmp_path / "out", count=300, size=8, grid=1, seed=3)
    black = sum((np.asarray(Image.open(path)) == 0).astype(int) for path in (out / "input").iterdir())
    assert (black > 0).all()


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first = multiseg.create_images(tmp_path / "a", count=20, seed=7)
    second = multiseg.create_images(tmp_path / "b", count=20, seed=7)
    other = multiseg.create_images(tmp_path / "c", count=20, seed=8)
    assert digest(first) == digest(second)
    assert digest(first) != digest(other)


def test_the_grid_holds_triangles_of_its_own(tmp_path: Path) -> None:
    out = multiseg.create_images(tmp_path / "out", count=9, grid=3, seed=1)
    grid = np.asarray(Image.open(out / "grid.png"))
    cells = {grid[r : r + 32, c : c + 32].tobytes() for r in (0, 32, 64) for c in (0, 32, 64)}
    assert len(cells) == 9
    assert not cells & {np.asarray(Image.open(path)).tobytes() for path in (out / "input").iterdir()}


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 0}, {"grid": -1}, {"seed": -1}, {"count": 1.5}])
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        multiseg.create_images(tmp_path / "out", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="already exists"):
        multiseg.create_images(tmp_path / "out", count=1)
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    multiseg.create_images(tmp_path / "out", count=150, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (150, 150)
