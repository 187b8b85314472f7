"""Draw synthetic images with their masks: the tutorial's triangles, and scenes for class segmentation."""

from multiseg.dataset.scenes.creation import SCENES, Scene, create_images

__all__ = ["SCENES", "Scene", "create_images"]
