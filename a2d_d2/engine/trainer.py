"""Training: Detectron2's DefaultTrainer with this project's data, start weights and evaluation."""

import contextlib
import functools
import json
import math
import os
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from a2d_d2.data.build import build_test_loader, build_train_loader, check_registered, start_at
from a2d_d2.data.stream import derived_seed
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.evaluation.evaluators import ActorActionEvaluator, DetectorEvaluators
from a2d_d2.modeling.start_weights import load_start_weights
from a2d_d2.modeling.system import predicts_actions, takes_clips
from a2d_d2.segmenters.second_stage import SecondStage, SegmentingEvaluator
from a2d_d2.utils.files import write_json
from a2d_d2.utils.weights import SafeCheckpointer
from a2d_d2.visualization.evaluator import QualitativeFrames

WRITER_PERIOD = 20  # steps between lines of metrics.json and of the log, Detectron2's default
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class MixedPrecisionTrainer(SimpleTrainer):
    """One optimisation step: forward under autocast, backward, clipping, update.

    Unlike Detectron2's AMPTrainer it runs on the CPU too, and clips the norm of the gradient over
    all parameters together.

    Args:
        precision: type of the forward pass; None is float32, float16 scales the loss too.
        max_grad_norm: largest norm of the gradient; 0 leaves it alone.
        seed: makes what the model draws in a step (regions to train on) depend on the step alone,
            as a resumed training needs it; None leaves the generators alone.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        precision: torch.dtype | None = None,
        max_grad_norm: float = 0.0,
        seed: int | None = None,
    ):
        super().__init__(model, data_loader, optimizer)
        self.device_type = next(model.parameters()).device.type
        self.precision = precision
        self.max_grad_norm = max_grad_norm
        self.seed = seed
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=precision == torch.float16)

    def run_step(self) -> None:
        start = time.perf_counter()
        clips = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.seed is not None:
            seed_all_rng(derived_seed(self.seed, comm.get_rank(), self.iter))
        autocast = contextlib.nullcontext()
        if self.precision is not None:
            autocast = torch.autocast(self.device_type, self.precision)
        with autocast:
            losses = self.model(clips)
        self.optimizer.zero_grad()
        self.scaler.scale(sum(losses.values())).backward()
        self._write_metrics(losses, data_time)  # stops at a loss that is not finite
        if self.max_grad_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state_dict(self) -> dict:
        return super().state_dict() | {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self.scaler.load_state_dict(state_dict["scaler"])


class ResumableBestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, with the best score so far in ``model_best.json`` for a resumed run."""

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and self._score_file.exists():
            best = json.loads(self._score_file.read_text(encoding="utf-8"))
            super()._update_best(best["score"], best["iteration"])

    @property
    def _score_file(self) -> Path:
        return Path(self._checkpointer.save_dir, f"{self._file_prefix}.json")

    def _update_best(self, val: float, iteration: int) -> bool:
        updated = super()._update_best(val, iteration)
        if updated:
            best = {"metric": self._val_metric, "score": float(val), "iteration": iteration}
            write_json(self._score_file, best)
        return updated


class BestModelWriter(SafeCheckpointer):
    """Writes the best weights aside: training resumes from the last ones, never from these."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        pass


class ActorActionTrainer(DefaultTrainer):
    """DefaultTrainer for clips: their loaders, start weights, AMP and the A2D evaluation.

    Detectron2's own detectors are trained and evaluated too, on single frames.
    """

    def __init__(self, cfg: CfgNode):
        if cfg.MODEL.TRAIN_BRANCH == "separate":
            raise ValueError(
                "MODEL.TRAIN_BRANCH separate is two trainings; a2d_d2.engine.stages has them"
            )
        # Does what DefaultTrainer does, with the step above for the AMP one that needs CUDA.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        if cfg.SEED >= 0:  # so that a later stage starts alike in whatever process
            seed_all_rng(cfg.SEED + comm.get_rank())
        check_registered("DATASETS.TEST", cfg.DATASETS.TEST)
        for name in cfg.DATASETS.TEST:
            # A fault shows now, not at the first evaluation.
            DatasetCatalog.get(name)
            self.build_evaluator(cfg, name)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        options = {"find_unused_parameters": has_unused_levels(cfg)}
        if model.device.type != "cuda":
            options["device_ids"] = None
        model = create_ddp_model(model, broadcast_buffers=False, **options)
        self._trainer = MixedPrecisionTrainer(
            model,
            self.build_train_loader(cfg),
            optimizer,
            precision=_precision(cfg),
            max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
            seed=cfg.SEED if cfg.SEED >= 0 else None,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Goes on from the last checkpoint of OUTPUT_DIR, or begins with the start weights.

        With a SEED the steps that follow are those of a training that was never stopped.
        """
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume=True)
            start_at(self._trainer.data_loader, self.start_iter)
        else:
            model = self.model
            if isinstance(model, nn.parallel.DistributedDataParallel):
                model = model.module
            load_start_weights(model, self.cfg)

    def build_hooks(self) -> list:
        made = super().build_hooks()
        if comm.is_main_process():
            # A checkpoint comes last in its step, and scores are written in theirs: a training that
            # is resumed from it then lacks no evaluation.
            period = math.gcd(WRITER_PERIOD, self.cfg.TEST.EVAL_PERIOD)
            checkpointers = [h for h in made if isinstance(h, hooks.PeriodicCheckpointer)]
            made = [h for h in made[:-1] if h not in checkpointers]
            made += [hooks.PeriodicWriter(self.build_writers(), period), *checkpointers]
        if self.cfg.TEST.BEST_METRIC and comm.is_main_process():
            # After EvalHook, which sets the score, and before writer and checkpointer.
            writer = BestModelWriter(self.model, self.cfg.OUTPUT_DIR)
            metric = self.cfg.TEST.BEST_METRIC
            if len(self.cfg.DATASETS.TEST) > 1:
                metric = f"{self.cfg.DATASETS.TEST[0]}/{metric}"
            best = ResumableBestCheckpointer(self.cfg.TEST.EVAL_PERIOD, writer, metric)
            made.insert(-2, best)
        return made

    def build_writers(self) -> list:
        return self._event_writers

    @functools.cached_property
    def _event_writers(self) -> list:
        """Made once: each opens a file."""
        return super().build_writers()

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            folder = os.path.join(folder, dataset_name)
        thresholds = {
            "actor_threshold": cfg.TEST.ACTOR_THRESH,
            # Equally likely actions must not fail the threshold.
            "action_threshold": cfg.TEST.ACTION_THRESH if predicts_actions(cfg) else 0.0,
        }
        evaluators = [ActorActionEvaluator(dataset_name, folder, **thresholds)]
        if cfg.TEST.NUM_PICTURES > 0:
            pictures = os.path.join(folder, "frames")
            evaluators.append(
                QualitativeFrames(dataset_name, pictures, cfg.TEST.NUM_PICTURES, **thresholds)
            )
        evaluator = DatasetEvaluators(evaluators)
        if not takes_clips(cfg):
            label_space = MetadataCatalog.get(dataset_name).label_space
            evaluator = DetectorEvaluators(evaluators, label_space, cfg.MODEL.CLASSES)
        if cfg.MODEL.SEGMENTER.NAME:
            evaluator = SegmentingEvaluator(evaluator, SecondStage(cfg))
        return evaluator


def has_unused_levels(cfg: CfgNode) -> bool:
    """Whether some level of a pyramid is computed that no head takes.

    The flow backbone mirrors that of appearance, whose RPN may need more levels than the regions.
    """
    levels = {name.replace("res", "p") for name in cfg.MODEL.FPN.IN_FEATURES}
    used = set(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    if not (takes_clips(cfg) and cfg.MODEL.FLOW.ENABLED and cfg.MODEL.TRAIN_BRANCH != "actor"):
        used |= set(cfg.MODEL.RPN.IN_FEATURES)
    return not levels <= used


def _precision(cfg: CfgNode) -> torch.dtype | None:
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.PRECISION not in PRECISIONS:
        names = " or ".join(PRECISIONS)
        raise ValueError(f"SOLVER.AMP.PRECISION is {cfg.SOLVER.AMP.PRECISION!r}; use {names}")
    return PRECISIONS[cfg.SOLVER.AMP.PRECISION]
