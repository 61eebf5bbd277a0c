"""From a record of an annotated frame to the clip that the network is fed.

Dimensions: F frames of the clip, K key frames among them, N frames around a key frame, C channels,
H and W of the augmented frames.
"""

import logging
import os
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances
from detectron2.utils.logger import log_first_n
from torch.utils.data import get_worker_info

from a2d_d2.data.clip_cache import ClipCache, read_clip
from a2d_d2.data.flow import check_flow_method, flow_to_input
from a2d_d2.data.transforms import build_augmentations
from a2d_d2.data.video import VideoError
from a2d_d2.data.windows import check_window, make_window
from a2d_d2.evaluation.predictions import check_mask
from a2d_d2.modeling.classes import model_label_space, pair_index, pair_targets
from a2d_d2.modeling.system import takes_clips
from a2d_d2.modeling.temporal import temporal_radius

# Of a record, what the clip keeps.
_KEPT = ("file_name", "video_id", "frame_index", "image_id", "height", "width", "label_map_file")


def build_mapper(cfg: CfgNode, is_train: bool) -> "ClipDatasetMapper | FrameDatasetMapper":
    """The mapper for what the meta-architecture takes: clips, or single frames."""
    return (ClipDatasetMapper if takes_clips(cfg) else FrameDatasetMapper)(cfg, is_train)


class ClipDatasetMapper:
    """Turns a record of :func:`a2d_d2.data.release.load_release` into a clip.

    Frames and flow come from the cache or, where it has none, from one decode of the video.
    Augmentations are drawn once a clip. For a detector that takes single frames the clip is the
    record's frame alone, without flow.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation],
        length: int,
        stride: int,
        radius: int,
        random_placement: bool,
        flow_method: str | None,
        cache: str | os.PathLike | None,
        use_masks: bool,
        recompute_boxes: bool,
        keep_frame: bool,
    ):
        """
        Args:
            is_train: whether clips get annotations, and all annotated frames of the window count.
            augmentations: applied to frames, flow and annotations.
            length, stride: of the window, in frames.
            radius: how many steps the model looks to each side of a key frame.
            random_placement: whether the frame of the record stands anywhere in the window, instead
                of its middle.
            flow_method: one of ``a2d_d2.data.flow.FLOW_METHODS``; None gives clips without flow.
            cache: folder that tools/prepare_clips.py wrote; None does without.
            use_masks: whether annotations have masks.
            recompute_boxes: from the masks, after a crop has cut instances off.
            keep_frame: whether a clip holds the record's frame as it was read, for a segmenter.
        """
        check_window(length, stride)
        if flow_method is not None:
            check_flow_method(flow_method)
        if cache is not None and not os.path.isdir(cache):
            raise ValueError(
                f"INPUT.CLIP.CACHE is {str(cache)!r}, which is no folder; make it with"
                " tools/prepare_clips.py, or leave the key empty"
            )
        assert use_masks or not recompute_boxes
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.length = length
        self.stride = stride
        self.radius = radius
        self.random_placement = random_placement
        self.flow_method = flow_method
        self.cache = ClipCache(cache, flow_method) if cache else None
        self.use_masks = use_masks
        self.recompute_boxes = recompute_boxes
        self.keep_frame = keep_frame
        if self.cache is None:
            log_first_n(
                logging.INFO,
                "INPUT.CLIP.CACHE is not set: videos are decoded and flow is computed for every"
                " clip anew. tools/prepare_clips.py does it once.",
                name=__name__,
            )

    @classmethod
    def from_config(cls, cfg, is_train: bool):
        if cfg.INPUT.FORMAT != "BGR":
            raise ValueError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; clips are BGR")
        has_clips = takes_clips(cfg)
        has_flow = has_clips and cfg.MODEL.FLOW.ENABLED and cfg.MODEL.TRAIN_BRANCH != "actor"
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "length": cfg.INPUT.CLIP.LENGTH if has_clips else 1,
            "stride": cfg.INPUT.CLIP.STRIDE,
            "radius": temporal_radius(cfg),
            "random_placement": is_train and cfg.INPUT.CLIP.RANDOM_PLACEMENT,
            "flow_method": cfg.INPUT.FLOW_METHOD if has_flow else None,
            "cache": cfg.INPUT.CLIP.CACHE or None,
            "use_masks": cfg.MODEL.MASK_ON,
            "recompute_boxes": is_train and cfg.MODEL.MASK_ON and cfg.INPUT.CROP.ENABLED,
            "keep_frame": not is_train and bool(cfg.MODEL.SEGMENTER.NAME),
        }

    def __call__(self, record: dict) -> dict:
        """
        Args:
            record: of an annotated frame, unchanged. "window_annotations" (frame index to
                annotations), if there, are those of other annotated frames nearby, see
                :func:`a2d_d2.data.build.with_window_annotations`.

        Returns:
            "image": uint8 (F, 3, H, W), BGR.
            "flow": float32 (F, 3, H, W), x, y and magnitude in pixels per frame from the frame
            before; only with a flow method.
            "frame": uint8 (height, width, 3), BGR, an array: the record's frame before any
            augmentation; at inference with MODEL.SEGMENTER only.
            "frame_indices": list of F frame numbers, 0-based.
            "key_positions": list of K positions in F; at inference the record's frame alone.
            "neighbours": int64 (K, N) positions in F, -1 where there is no frame.
            "instances": in training, K Instances with ``gt_boxes``, ``gt_classes`` (actor),
            ``gt_actions`` and ``gt_masks``.
            "file_name", "video_id", "frame_index", "image_id", "height", "width" (of the video) and
            "label_map_file" of the record.

        Raises:
            VideoError: the clip cannot be decoded, ends before the record's frame, or has frames of
                another size than its annotations; names it.
        """
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # the loader's processes already use the cores
        key_frame = record["frame_index"]
        annotations = {}
        if self.is_train:
            annotations = {key_frame: record["annotations"]} | record.get("window_annotations", {})
        window = make_window(
            key_frame,
            None,
            length=self.length,
            stride=self.stride,
            radius=self.radius,
            annotated=annotations,
            position=np.random.randint(self.length) if self.random_placement else None,  # noqa: NPY002
        )
        frames = self._read(record, window.frames)
        window = window.restrict(frames)

        drawn = T.AugInput(frames[key_frame][0])
        transforms = self.augmentations(drawn)
        size = drawn.image.shape[:2]
        images = [
            drawn.image if i == key_frame else transforms.apply_image(frames[i][0])
            for i in window.frames
        ]
        clip = {key: record[key] for key in _KEPT}
        clip["image"] = frames_to_tensor(images)
        if self.flow_method is not None:
            motion = np.empty((len(images), 3, *size), dtype=np.float32)
            for i, out in zip(window.frames, motion, strict=True):
                flow_to_input(transforms.apply_flow(frames[i][1]), out)
            clip["flow"] = torch.from_numpy(motion)
        if self.keep_frame:
            clip["frame"] = frames[key_frame][0]
        clip["frame_indices"] = list(window.frames)
        clip["key_positions"] = list(window.keys)
        clip["neighbours"] = torch.tensor(window.neighbours, dtype=torch.int64)
        if self.is_train:
            clip["instances"] = [
                self._instances(annotations[window.frames[key]], transforms, size)
                for key in window.keys
            ]
        return clip

    def _read(
        self, record: dict, indices: Sequence[int]
    ) -> dict[int, tuple[np.ndarray, np.ndarray | None]]:
        """Index to (BGR frame, flow), for those of the frames that the video has."""
        clip = record["file_name"]
        frames = None
        if self.cache is not None:
            frames = self.cache.read(clip, record["video_id"], indices)
            if frames is None:
                log_first_n(
                    logging.WARNING,
                    f"the clip cache {self.cache.folder} was made for other windows, is out of"
                    f" date or broken (first seen at video {record['video_id']}). Such clips are"
                    " decoded and their flow is computed again and again; to complete the cache,"
                    " run tools/prepare_clips.py with the same root and cache and this"
                    " --config-file",
                    name=__name__,
                )
        if frames is None:
            frames = read_clip(clip, indices, self.flow_method)
        key_frame = record["frame_index"]
        if key_frame not in frames:
            raise VideoError(
                f"{clip} ends before its annotated frame {key_frame + 1};"
                " tools/check_dataset.py lists such faults"
            )
        height, width = frames[key_frame][0].shape[:2]
        if (height, width) != (record["height"], record["width"]):
            raise VideoError(
                f"{clip} has frames of {width}x{height} pixels, the annotation of frame"
                f" {key_frame + 1} has {record['width']}x{record['height']};"
                " tools/check_dataset.py lists such faults"
            )
        return frames

    def _instances(
        self, annotations: Sequence[dict], transforms: T.TransformList, size: tuple[int, int]
    ) -> Instances:
        """The ground truth of one key frame; instances that a crop has cut off are left out."""
        for annotation in annotations if self.use_masks else ():
            check_mask(annotation["segmentation"])  # which pycocotools would take as it is
        unused = () if self.use_masks else ("segmentation",)
        kept = [
            detection_utils.transform_instance_annotations(
                {key: value for key, value in annotation.items() if key not in unused},
                transforms,
                size,
            )
            for annotation in annotations
        ]
        for annotation in kept if self.use_masks else ():
            annotation["segmentation"] = annotation["segmentation"].copy()  # PIL's is read-only
        instances = detection_utils.annotations_to_instances(kept, size, mask_format="bitmask")
        instances.gt_actions = torch.tensor([x["action_id"] for x in kept], dtype=torch.int64)
        if self.use_masks and not kept:
            instances.gt_masks = BitMasks(torch.zeros((0, *size), dtype=torch.bool))
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)


class FrameDatasetMapper:
    """Turns a record into the single frame that Detectron2's own detectors take.

    It is a clip of that frame alone. Other annotated frames have their own records.
    """

    @configurable
    def __init__(self, *, clip_mapper: ClipDatasetMapper, pairs: torch.Tensor | None):
        """
        Args:
            clip_mapper: makes clips of one frame.
            pairs: of :func:`a2d_d2.modeling.classes.pair_index` if the classes are the valid pairs;
                None if they are the actors.
        """
        self.clip_mapper = clip_mapper
        self.pairs = pairs

    @classmethod
    def from_config(cls, cfg, is_train: bool):
        pairs = None
        if cfg.MODEL.CLASSES == "pairs":
            pairs = pair_index(torch.tensor(model_label_space(cfg).valid))
        return {"clip_mapper": ClipDatasetMapper(cfg, is_train), "pairs": pairs}

    def __call__(self, record: dict) -> dict:
        """
        Args:
            record: as for :class:`ClipDatasetMapper`.

        Returns:
            "image": uint8 (3, H, W), BGR.
            "instances": in training Instances with ``gt_boxes``, ``gt_classes`` (actor or pair) and
            ``gt_masks``.
            "frame", where a clip has it, and what a clip keeps of the record.
        """
        clip = self.clip_mapper(record)
        frame = {key: clip[key] for key in _KEPT}
        (frame["image"],) = clip["image"]
        if "frame" in clip:
            frame["frame"] = clip["frame"]
        if "instances" in clip:
            (truth,) = clip["instances"]
            if self.pairs is None:
                truth.remove("gt_actions")
            else:
                truth = pair_targets(truth, self.pairs)
            frame["instances"] = truth
        return frame


def frames_to_tensor(images: Sequence[np.ndarray]) -> torch.Tensor:
    """F images (H, W, C) of one size as one tensor (F, C, H, W)."""
    height, width, channels = images[0].shape
    stacked = np.empty((len(images), channels, height, width), dtype=images[0].dtype)
    for planes, image in zip(stacked, images, strict=True):
        if image.strides[1] < 0:  # flipped without a copy: OpenCV's copy is faster than NumPy's
            image = cv2.flip(image[:, ::-1], 1)
        for plane, channel in zip(planes, cv2.split(image), strict=True):
            plane[:] = channel
    return torch.from_numpy(stacked)
