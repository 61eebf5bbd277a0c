"""Who reads files of strangers, what files they are given, and what must hold when one is accepted.

A reader may refuse a file, with a ValueError. If it accepts it, what it gives is compared with what
the file says, read by other means, or with the undamaged original where a checksum protects it.
"""

import contextlib
import csv
import html.parser
import io
import itertools
import json
import math
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import nn

from a2d_d2.config import setup_cfg
from a2d_d2.config_values import RULES
from a2d_d2.data.clip_cache import ClipCache, prepare_clips
from a2d_d2.data.flow import encode_flow, read_flow
from a2d_d2.data.index import index_path, load_index
from a2d_d2.data.layout import (
    annotated_frames,
    clip_path,
    read_annotation,
    read_videoset,
)
from a2d_d2.data.mapper import build_mapper
from a2d_d2.data.video import iter_frames
from a2d_d2.engine.kills import TINY
from a2d_d2.engine.non_finite import NonFiniteSteps, describe, generator_states, replay
from a2d_d2.engine.precision import precision
from a2d_d2.engine.trainer import ActorActionTrainer, MixedPrecisionTrainer, parts_of_a_batch
from a2d_d2.evaluation.predictions import decode_mask, encode_mask, read_predictions
from a2d_d2.evaluation.score_files import read_label_map
from a2d_d2.fuzz import mutations
from a2d_d2.fuzz.campaign import Target
from a2d_d2.inference.source import VideoSource
from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.start_weights import load_weights
from a2d_d2.utils.config_files import flat_keys, leaves
from a2d_d2.visualization.report import Report, render_report
from a2d_d2.visualization.results import read_metrics
from a2d_d2.visualization.training_log import read_training_log
from a2d_d2.visualization.video_page import VideoPage, render_video_page

CONFIGS = Path(__file__).parents[2] / "configs"


class Videoset(Target):
    """videoset.csv of a release."""

    def prepare(self):
        self.path = self.folder / "videoset.csv"
        text = (self.release / "videoset.csv").read_bytes()
        self.rows = list(csv.reader(text.decode().splitlines()))
        self.texts = [text, b"id,b,c,d,e,f,g,h,usage\n" + text, b'"a", 1,0,1,9,9,5,1,0\n' * 2]

    def cases(self):
        return mutations.csv_files(self.rows) | mutations.damaged(self.texts)

    def read(self, data):
        videos = read_videoset(self.folder)
        rows = {}
        for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")):
            if len(row) == 9:
                rows[row[0].strip()] = {"0": "train", "1": "test"}.get(row[8].strip())
        for video in videos:
            inside = clip_path(self.folder, video.video_id).resolve()
            assert inside.parent == (self.folder / "clips320H").resolve(), "a path leaves ROOT"
            annotated_frames(self.folder, video.video_id)
            split = rows.get(video.video_id)
            assert split in (None, video.split), "a video is in the wrong split"


class Annotations(Target):
    """Annotations of a release: MATLAB v7.3 (HDF5) files."""

    def prepare(self):
        self.path = self.folder / "00001.mat"
        files = sorted((self.release / "Annotations/mat").rglob("*.mat"))
        self.files = [path.read_bytes() for path in files[:4]]
        self.files += map(mutations.large_annotation, ("id", "reBBox"))

    def cases(self):
        return mutations.annotation_files() | mutations.damaged(self.files)

    def read(self, data):
        annotation = read_annotation(self.path)
        count, size = len(annotation.joint_ids), annotation.label_map.shape
        assert annotation.masks.shape == (count, *size) and annotation.masks.dtype == bool
        assert np.isfinite(annotation.boxes).all()
        with h5py.File(self.path, "r") as file:
            ids = [] if "MATLAB_empty" in file["id"].attrs else file["id"][()].ravel().tolist()
            assert annotation.joint_ids == ids, "other ids than in the file"
            assert (file["reS_id"][()] == annotation.label_map.T).all(), "other labels"
            if count:
                masks = file["reMask"][()].reshape(count, *size[::-1])
                assert (masks == annotation.masks.transpose(0, 2, 1)).all(), "other masks"


class Index(Target):
    """The stored index of a release."""

    def prepare(self):
        root = self.folder / "A2D"
        ignore = shutil.ignore_patterns("col", "clips320H", ".a2d*")
        shutil.copytree(self.release, root, ignore=ignore)
        self.root, self.path = root, index_path(root)
        self.ids = [video.video_id for video in read_videoset(root)]
        self.expected = load_index(root, self.ids, workers=1, progress=False)
        self.stored = self.path.read_bytes()

    def cases(self):
        return mutations.damaged([self.stored]) | mutations.json_files([json.loads(self.stored)])

    def read(self, data):
        found = load_index(self.root, self.ids, workers=1, progress=False)
        assert found == self.expected, "the index of a damaged file is used"
        return self.path.read_bytes() == data


class LabelSpaces(Target):
    """Label spaces, YAML."""

    def prepare(self):
        self.path = self.folder / "classes.yaml"
        self.seeds = [
            LabelSpace.a2d().to_dict(),
            {"actors": ["horse", "rider"], "actions": ["trotting", "none"]},
            {"actors": ["a"], "actions": ["b", "c"], "valid": {"a": ["c"]}, "coco": {"a": "dog"}},
        ]

    def cases(self):
        return mutations.yaml_files(self.seeds)

    def read(self, data):
        space = LabelSpace.load(self.path)
        value = yaml.safe_load(data)
        assert list(space.actors) == value["actors"] and list(space.actions) == value["actions"]
        for (i, actor), (j, action) in itertools.product(
            enumerate(value["actors"]), enumerate(value["actions"])
        ):
            allowed = (value.get("valid") or {}).get(actor, value["actions"])
            assert space.valid[i, j] == (action in allowed), "another pair is valid"
            assert space.split_id(space.joint_id(i, j)) == (i, j)
        assert space.max_id <= np.iinfo(space.label_map_dtype).max
        assert space.palette.shape == (space.max_id + 1, 3)
        assert LabelSpace.from_dict(space.to_dict()) == space


class Predictions(Target):
    """Predictions, JSON with run-length encodings."""

    def prepare(self):
        self.path = self.folder / "predictions.json"
        mask = np.zeros((9, 7), dtype=bool)
        mask[2:5, 1:6] = True
        a2d = LabelSpace.a2d()
        entry = {
            "video_id": "a",
            "frame": 1,
            "actor": "dog",
            "score": 0.9,
            "action_scores": [0.1] * a2d.num_actions,
            "bbox": [1, 2, 3, 4],
            "segmentation": encode_mask(mask),
        }
        counts = {"size": [9, 7], "counts": [20, 5, 38]}
        bombs = [
            {"size": [10**9, 10**9], "counts": [10**18]},
            {"size": [2**20, 2**19], "counts": "PPPPPPPPP00"},
            {"size": [2**15, 2**15], "counts": "PPPPPP1"},
            {"size": [9, 7], "counts": "o" * 40},
            {"size": [9, 7], "counts": [2**63, -(2**63), 63]},
        ]
        self.seeds = [
            [entry, entry | {"action_scores": {"running": 1.0}, "segmentation": counts}],
            [entry | {"segmentation": None}],
            [entry | {"segmentation": bomb} for bomb in bombs],
        ]

    def cases(self):
        return mutations.json_files(self.seeds)

    def read(self, data):
        space = LabelSpace.a2d()
        frames = read_predictions(self.path, space)
        entries = json.loads(data)
        assert sum(len(frame.actors) for frame in frames.values()) == len(entries)
        for (video_id, index), frame in frames.items():
            same = [e for e in entries if (e["video_id"], e["frame"]) == (video_id, index + 1)]
            for i, entry in enumerate(same):
                assert space.actors[frame.actors[i]] == entry["actor"], "another actor"
                scores = entry["action_scores"]
                if isinstance(scores, dict):
                    scores = [scores.get(name, 0) for name in space.actions]
                assert frame.action_scores[i].tolist() == scores, "other action scores"
                if entry.get("segmentation") is not None:
                    mask = decode_mask(entry["segmentation"])
                    assert (mask == _decode(entry["segmentation"])).all(), "another mask"


def _decode(segmentation: dict) -> np.ndarray:
    """A run-length encoding as COCO's C code defines it, in plain Python."""
    counts = segmentation["counts"]
    if isinstance(counts, str):
        runs, place = [], 0
        while place < len(counts):
            value = shift = 0
            more = True
            while more:
                code = ord(counts[place]) - 48
                value |= (code & 31) << (5 * shift)
                more = bool(code & 32)
                place, shift = place + 1, shift + 1
                if not more and code & 16:
                    value |= -1 << (5 * shift)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
    else:
        runs = counts
    height, width = segmentation["size"]
    bits = [number % 2 for number, run in enumerate(runs) for _ in range(run)]
    return np.array(bits, dtype=bool).reshape(width, height).T


class LabelMaps(Target):
    """Label maps, PNG of one channel."""

    def prepare(self):
        self.path = self.folder / "00001.png"
        values = np.random.default_rng(0).choice([0, 11, 79], (12, 9)).astype(np.uint8)
        self.files = []
        for array in (values, values.astype(np.uint16) * 4, np.stack([values] * 3, axis=2)):
            self.files.append(cv2.imencode(".png", array)[1].tobytes())
        stream = io.BytesIO()
        Image.fromarray(values).convert("P").save(stream, "PNG")
        self.files.append(stream.getvalue())

    def cases(self):
        return mutations.damaged(self.files)

    def read(self, data):
        values = read_label_map(self.path)
        assert values.ndim == 2 and values.dtype.kind in "ui"


class Flows(Target):
    """Flow, 16-bit PNG."""

    def prepare(self):
        self.path = self.folder / "00002.png"
        flow = np.random.default_rng(0).normal(size=(12, 9, 2)).astype(np.float32)
        self.file = encode_flow(flow)
        self.path.write_bytes(self.file)
        self.expected = read_flow(self.path)

    def cases(self):
        return mutations.damaged([self.file])

    def read(self, data):
        assert (read_flow(self.path) == self.expected).all(), "damaged flow is used"


class Videos(Target):
    """Clips, MP4 and AVI."""

    def prepare(self):
        self.path = self.folder / "clip.mp4"
        clip = next((self.release / "clips320H").glob("*.mp4"))
        self.files = [clip.read_bytes()]
        avi = self.folder / "clip.avi"
        writer = cv2.VideoWriter(str(avi), cv2.VideoWriter_fourcc(*"MJPG"), 12, (32, 24))
        for value in range(4):
            writer.write(np.full((24, 32, 3), 60 * value, dtype=np.uint8))
        writer.release()
        self.files.append(avi.read_bytes())
        avi.unlink()

    def cases(self):
        return mutations.damaged(self.files)

    def read(self, data):
        for frame in iter_frames(self.path):
            assert frame.ndim == 3 and frame.dtype == np.uint8 and frame.size
        source, times = VideoSource(self.path), []
        for time, frame in source:
            assert frame.ndim == 3 and frame.dtype == np.uint8
            times.append(time)
        assert all(a < b for a, b in itertools.pairwise(times))


class Caches(Target):
    """Archives of the clip cache: frames, and flow."""

    def prepare(self):
        self.cache = ClipCache(self.folder, "farneback")
        prepare_clips(
            self.release, self.folder, flow_method="farneback", length=3, workers=1, progress=False
        )
        video = read_videoset(self.release)[0]
        self.video = video.video_id
        self.clip = clip_path(self.release, self.video)
        self.frames = annotated_frames(self.release, self.video)[:1]
        self.expected = self.cache.read(self.clip, self.video, self.frames)
        kinds = ("frames-jpeg95", "flow-farneback-3levels-window15")
        self.paths = [self.folder / kind / f"{self.video}.zip" for kind in kinds]
        self.originals = [path.read_bytes() for path in self.paths]

    def cases(self):
        return mutations.damaged(self.originals)

    def read(self, data):
        is_flow = b"00001.png" in data or b".png" in data
        self.paths[is_flow].write_bytes(data)
        try:
            found = self.cache.read(self.clip, self.video, self.frames)
        finally:
            self.paths[is_flow].write_bytes(self.originals[is_flow])
        if found is None:
            return False
        for index, arrays in self.expected.items():
            for ours, theirs in zip(arrays, found[index], strict=True):
                assert np.array_equal(ours, theirs), "a damaged cache is used"
        return True


class Configs(Target):
    """Configurations, YAML; what is accepted makes a mapper, and a tiny network takes a step."""

    def prepare(self):
        self.path = self.folder / "case.yaml"
        self.seeds = []
        for path in sorted(CONFIGS.rglob("*.yaml")):
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
            value.pop("_BASE_", None)
            self.seeds.append(value)
        self.seeds.append({"INPUT": {"CLIP": {"LENGTH": 3, "STRIDE": 2}, "COLOR_JITTER": 0.1}})
        tiny = _tiny_cfg(self)
        (self.folder / "tiny.yaml").write_text(tiny.dump(), encoding="utf-8")
        self.tiny = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in flat_keys(tiny, "")
            if key.startswith(_READ)
        }
        self.slips = [*_SLIPS]
        for key, rule in RULES.items():
            self.slips += [{key: name} for name in rule.names()]

    def cases(self):
        slips = mutations.settings(self.tiny, self.slips, "tiny.yaml")
        return mutations.yaml_files(self.seeds) | slips | slips

    def is_named(self, message):
        # What finds out that keys do not go together knows them alone.
        named = re.search(r"\b[A-Z_]+\.[A-Z_.]+[A-Z_]\b|OUTPUT_DIR|label space", message)
        return super().is_named(message) or named is not None

    def read(self, data):
        cfg = setup_cfg(str(self.path))
        build_mapper(cfg, is_train=True)
        if b"tiny.yaml" in data and _is_small(cfg):
            with contextlib.suppress(FloatingPointError):  # of large numbers: no mistake of a key
                _take_a_step(cfg)


def _tiny_cfg(target: Target) -> CfgNode:
    """A training of a tiny network, on a copy of the release."""
    torch.set_num_threads(1)  # its tensors are so small that a second one costs time
    root = target.folder / "A2D"
    shutil.copytree(target.release, root)
    values = TINY | {
        "DATASETS.ROOT": str(root),
        "OUTPUT_DIR": str(target.folder / "output"),
        "SOLVER.IMS_PER_BATCH": 1,
        # Most of a step would be to start the many weights of a ResNet-18.
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    }
    return setup_cfg(str(CONFIGS / "synthetic/R18_FPN.yaml"), [*_options(values)])


def _take_a_step(cfg: CfgNode) -> None:
    """What train_net.py does up to the end of the first step."""
    cfg = ActorActionTrainer.auto_scale_workers(cfg, 1)
    model = ActorActionTrainer.build_model(cfg)
    optimizer = ActorActionTrainer.build_optimizer(cfg, model)
    scheduler = ActorActionTrainer.build_lr_scheduler(cfg, optimizer)
    step = MixedPrecisionTrainer(
        model,
        ActorActionTrainer.build_train_loader(cfg),
        optimizer,
        precision=precision(cfg),
        max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
        accumulate=parts_of_a_batch(cfg),
    )
    step.iter, step.max_iter = 0, cfg.SOLVER.MAX_ITER
    with EventStorage() as step.storage:
        step.run_step()
    scheduler.step()


def _is_small(cfg: CfgNode) -> bool:
    """Whether a step takes seconds and little memory, without processes."""
    return all(
        max([0, *(x for x in leaves(value) if isinstance(x, int | float))]) <= _SMALL[name]
        for key, value in flat_keys(cfg, "")
        if key.startswith(_READ) and (name := key.rpartition(".")[2]) in _SMALL
    )


# What the network and the step read, not other networks of Detectron2.
_READ = (
    *("MODEL.PIXEL", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.BACKBONE", "MODEL.RESNETS"),
    *("MODEL.FPN", "MODEL.ANCHOR", "MODEL.PROPOSAL", "MODEL.RPN", "MODEL.ROI_HEADS", "MODEL.FLOW"),
    *("MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD", "MODEL.ROI_ACTION_HEAD", "MODEL.TEMPORAL"),
    *("MODEL.FUSION", "MODEL.LOSS", "MODEL.META", "MODEL.CLASSES", "MODEL.TRAIN_BRANCH"),
    *("INPUT", "DATALOADER", "SOLVER", "TEST", "SEED", "VIS_PERIOD"),
)
_SMALL = {
    "DEPTH": 50,
    "NUM_GROUPS": 8,
    "WIDTH_PER_GROUP": 32,
    **dict.fromkeys(("RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS"), 64),
    **dict.fromkeys(("OUT_CHANNELS", "FC_DIM", "CONV_DIM", "CONV_DIMS"), 256),
    **dict.fromkeys(("NUM_FC", "NUM_CONV", "NUM_LAYERS", "POOLER_SAMPLING_RATIO"), 8),
    "MIN_SIZE_TRAIN": 160,
    "BATCH_SIZE_PER_IMAGE": 512,
    "POOLER_RESOLUTION": 28,
    "LENGTH": 8,
    "IMS_PER_BATCH": 8,
    "NUM_WORKERS": 0,
}


def _options(values: Mapping) -> Iterator[str]:
    for key, value in values.items():
        yield from (key, str(value))


# Slips that once ended a training with a traceback, or changed it without a word.
_SLIPS = tuple(
    {key: value}
    for values, keys in (
        ((0, -3), "SOLVER.CHECKPOINT_PERIOD SOLVER.MAX_ITER SOLVER.IMS_PER_BATCH"),
        ((3,), "SOLVER.REFERENCE_WORLD_SIZE"),
        ((10**21,), "SOLVER.MAX_ITER"),
        ((10**8 + 1,), "INPUT.CLIP.LENGTH"),
        ((-1.0, "1e400"), "SOLVER.BASE_LR"),
        ((-1,), "SOLVER.CHECKPOINTS_KEPT SOLVER.MAX_SKIPPED_STEPS MODEL.TEMPORAL.NUM_LAYERS"),
        (("foo",), "MODEL.ROI_BOX_HEAD.NAME MODEL.ROI_MASK_HEAD.NAME MODEL.RPN.HEAD_NAME"),
        (("foo",), "MODEL.PROPOSAL_GENERATOR.NAME MODEL.ANCHOR_GENERATOR.NAME MODEL.FPN.NORM"),
        (("foo",), "MODEL.RESNETS.NORM INPUT.CROP.TYPE INPUT.MIN_SIZE_TRAIN_SAMPLING"),
        (("foo",), "INPUT.RANDOM_FLIP"),
        ((7,), "MODEL.RESNETS.DEPTH"),
        ((0,), "MODEL.FPN.OUT_CHANNELS MODEL.ROI_HEADS.CANONICAL_BOX_SIZE"),
        ((0,), "MODEL.ROI_ACTION_HEAD.NUM_FC MODEL.ROI_BOX_HEAD.FC_DIM"),
        ((0,), "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"),
        ((-3,), "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"),
        (([],), "MODEL.ANCHOR_GENERATOR.SIZES MODEL.ROI_HEADS.IN_FEATURES MODEL.FLOW.PIXEL_STD"),
        (([],), "MODEL.RESNETS.OUT_FEATURES INPUT.MIN_SIZE_TRAIN"),
        (([1.0],), "MODEL.PIXEL_MEAN"),
        ((True,), "MODEL.KEYPOINT_ON"),
        (("", "/dev/null/x"), "OUTPUT_DIR"),
    )
    for value in values
    for key in keys.split()
)


class Checkpoints(Target):
    """Checkpoints: .pkl of the model zoo, .pth."""

    def prepare(self):
        self.model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        weights = {name: value.numpy() for name, value in self.model.state_dict().items()}
        zoo = {"model": weights, "__author__": "Detectron2 Model Zoo"}
        self.files = [pickle.dumps(zoo, protocol) for protocol in (2, 4, 5)]
        for legacy in (False, True):
            stream = io.BytesIO()
            torch.save(
                {"model": self.model.state_dict(), "iteration": 3},
                stream,
                _use_new_zipfile_serialization=not legacy,
            )
            self.files.append(stream.getvalue())
        self.files.append(b"cos\nsystem\n(S'exit 1'\ntR.")
        function, (_, *rest) = np.zeros(1 << 18, dtype=np.uint8).__reduce_ex__(5)
        call = function, bytes(1 << 18), *rest
        self.files.append(pickle.dumps({str(i): _Reduced(*call) for i in range(3000)}))

    def cases(self):
        return mutations.damaged(self.files)

    def read(self, data):
        suffix = ".pth" if data[:2] == b"PK" or b"torch" in data else ".pkl"
        path = self.path.with_suffix(suffix)
        os.replace(self.path, path)
        try:
            load_weights(self.model, "MODEL.WEIGHTS", str(path))
        finally:
            path.unlink()


class _Reduced:
    """Pickled as a call."""

    def __init__(self, function: Callable, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Replays(Target):
    """Steps that were not finite, kept for replay."""

    def prepare(self):
        cfg = _tiny_cfg(self)
        cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0])
        seed_all_rng(cfg.SEED)
        steps = NonFiniteSteps(self.folder / "steps", cfg.dump(), max_skipped=0)
        clips = next(iter(ActorActionTrainer.build_train_loader(cfg)))
        model = ActorActionTrainer.build_model(cfg)
        losses = {"loss_cls": torch.tensor(math.nan)}
        with contextlib.suppress(ValueError):  # which ends a training
            steps.skip(7, "loss", model, clips, generator_states(), losses)
        (path,) = (self.folder / "steps").iterdir()
        self.file = path.read_bytes()
        self.whole = torch.load(path, weights_only=False)  # our own
        self.batches = [
            clips,
            [clips[0] | {"image": torch.zeros(1).expand(2, 3, 9000, 9000)}],
            [clips[0] | {"flow": torch.zeros(1, dtype=torch.uint8).expand(4, 3, 8000, 8000)}],
            clips * 5000,
            [clips[0] | {"key_positions": [0] * 10**6}],
            [clips[0] | {"neighbours": torch.zeros(10**5, 3, dtype=torch.int64)}],
        ]

    def cases(self):
        values = mutations.changed([self.whole])
        values |= mutations.changed(self.batches).map(self._with)
        return mutations.torch_files(values) | mutations.damaged([self.file])

    def _with(self, clips):
        (process,) = self.whole["processes"]
        return self.whole | {"processes": [process | {"clips": clips}]}

    def is_named(self, message):
        return super().is_named(message) or re.search(r"\b[A-Z]+\.[A-Z_.]+\b", message) is not None

    def read(self, data):
        facts, found = replay(self.path)
        value = torch.load(io.BytesIO(data), weights_only=True)
        assert facts == {"step": value["step"], "what": value["what"]}
        for rank, (each, process) in enumerate(zip(found, value["processes"], strict=True)):
            assert str(each.stored) == str(process["losses"]), "other losses"  # nan is not nan
            assert describe(each, rank)


class Pages(Target):
    """Names of files and classes, scores and training logs, on pages."""

    def prepare(self):
        self.path = self.folder / "metrics.json"
        metrics = {
            "segmentation": {"joint": {"ave": 1.0, "glo": 2.0, "mIoU": None}},
            "detection": {"joint": {"mAP": 3.0}},
            "per_class": {"segmentation": {"actor": {"dog": {"IoU": 5.0, "recall": 1}}}},
        }
        self.seeds = [
            {"names": ["<img src=x onerror=alert(1)>.mp4", "a"], "metrics": metrics},
            {"names": ["\"'><script>alert(1)</script>", "b"], "metrics": metrics},
            {"names": ["\udcff.mp4"], "metrics": metrics, "log": '{"iteration": 1, "<b>": 2}\n'},
        ]

    def cases(self):
        return mutations.json_files(self.seeds)

    def is_named(self, message):
        return super().is_named(message) or "label space" in message

    def read(self, data):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} is not valid JSON") from error
        value = value if isinstance(value, dict) else {"names": value}
        names = list(dict.fromkeys(_texts(value)))[:20] or ["x"]
        actors = [name for name in names if name and name.isprintable()] or ["dog"]
        space = LabelSpace(
            names[0], tuple(actors), ("run",), tuple((i, 0) for i in range(len(actors)))
        )
        self._check(space, names[0], {}, {})
        self.path.write_text(json.dumps(value.get("metrics")))
        log = self.folder / "training.json"
        log.write_text(str(value.get("log", "")), errors="surrogatepass")
        self._check(space, names[-1], read_metrics(str(self.path)), read_training_log(log))

    @staticmethod
    def _check(space: LabelSpace, name: str, metrics: dict, training: dict) -> None:
        report = Report(space, name, (), name, name, metrics=metrics, training=training)
        for text, plain in (
            (render_report(report), render_report(Report(space, "a", (), "b", "c"))),
            (render_video_page(_page(name)), render_video_page(_page("plain"))),
        ):
            tags = _tags(text)
            strange = {tag for tag, _ in tags} - _PLAIN_TAGS
            assert not strange, f"a name became a tag of the page: {strange}"
            scripts = [text.count("<script"), plain.count("<script")]
            assert scripts[0] <= scripts[1], "a name became a script of the page"
            assert not [name for _, name in tags if name.startswith("on")], "a name runs something"


# What pages are made of; nothing else may come of a name, and no attribute that runs something.
_PLAIN_TAGS = frozenset(
    re.findall(
        r"\w+",
        "a article b body caption div figcaption figure footer h1 h2 h3 head header html i img li "
        "line main meta nav p path polyline rect script section small span style svg table tbody "
        "td text tfoot th thead title tr ul video",
    )
)


def _texts(value) -> Iterator[str]:
    """The texts in a value, keys among them."""
    if isinstance(value, dict | list):
        for each in value:
            yield from _texts(each)
        for each in value.values() if isinstance(value, dict) else ():
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def _page(name: str) -> VideoPage:
    return VideoPage(name, name, name, name, name, (9, 9), 1.0, (), name)


def _tags(text: str) -> set[tuple[str, str]]:
    """(tag, attribute) of a page; attribute "" for each tag itself."""
    found = set()

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.add((tag, ""))
            found.update((tag, name) for name, _ in attrs)

    Parser().feed(text)
    return found


TARGETS: dict[str, Callable[[Path, Path], Target]] = {
    "videoset": Videoset,
    "annotations": Annotations,
    "index": Index,
    "label_space": LabelSpaces,
    "predictions": Predictions,
    "label_maps": LabelMaps,
    "flow": Flows,
    "video": Videos,
    "cache": Caches,
    "config": Configs,
    "checkpoint": Checkpoints,
    "replay": Replays,
    "page": Pages,
}
