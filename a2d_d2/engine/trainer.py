"""Training: Detectron2's DefaultTrainer with this project's data, start weights and evaluation."""

import contextlib
import functools
import json
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
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
from a2d_d2.engine.checkpoint import RunCheckpointer
from a2d_d2.engine.logs import EventsFile, MetricsFile, MetricsHook, StepPrinter
from a2d_d2.engine.non_finite import FOLDER, NonFiniteSteps, generator_states
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.engine.precision import autocast, precision
from a2d_d2.engine.ranks import any_process, share_buffers, without_ddp
from a2d_d2.engine.step import add_mean, parts_of, training_losses
from a2d_d2.engine.stop import StopRequest
from a2d_d2.evaluation.evaluators import ActorActionEvaluator, DetectorEvaluators
from a2d_d2.modeling.start_weights import load_start_weights
from a2d_d2.modeling.system import predicts_actions, takes_clips
from a2d_d2.segmenters.second_stage import SecondStage, SegmentingEvaluator
from a2d_d2.utils.files import write_json
from a2d_d2.visualization.evaluator import QualitativeFrames

EVALUATION_DUE = "evaluation_due"  # in a checkpoint that was written before an evaluation
WRITER_PERIOD = 20  # steps between lines of metrics.json and of the log, Detectron2's default


class MixedPrecisionTrainer(SimpleTrainer):
    """One optimisation step: forward under autocast, backward, clipping, update.

    Unlike Detectron2's AMPTrainer it runs on the CPU too, and clips the norm of the gradient over
    all parameters together.

    Args:
        precision: type of the forward pass; None is float32, float16 scales the loss too.
        max_grad_norm: largest norm of the gradient; 0 leaves it alone.
        accumulate: equal parts of the batch that go through the model one after the other. The
            step is that of as many processes, each with one part.
        seed: makes what the model draws in a step (regions to train on) depend on the step alone,
            as a resumed training needs it; None leaves the generators alone.
        non_finite: what becomes of steps whose loss or gradient is not finite. They change neither
            weights nor statistics, in no process. None: the first one is a FloatingPointError.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        precision: torch.dtype | None = None,
        max_grad_norm: float = 0.0,
        accumulate: int = 1,
        seed: int | None = None,
        non_finite: NonFiniteSteps | None = None,
    ):
        super().__init__(model, data_loader, optimizer)
        self.device_type = next(model.parameters()).device.type
        self.precision = precision
        self.max_grad_norm = max_grad_norm
        self.accumulate = accumulate
        self.seed = seed
        self.non_finite = non_finite
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=precision == torch.float16)

    def run_step(self) -> None:
        start = time.perf_counter()
        clips = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.seed is not None:
            seed_all_rng(derived_seed(self.seed, comm.get_rank(), self.iter))
        generators = generator_states()
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.optimizer.zero_grad()
        losses, is_finite = self._compute_gradients(clips)
        what = "loss"
        if is_finite:
            self._write_metrics(losses, data_time)
            if self.update():
                return
            what = "gradient"
        if self.non_finite is None:
            raise FloatingPointError(f"the {what} is not finite at iteration={self.iter}")
        self.optimizer.zero_grad()
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        self.non_finite.skip(self.iter, what, without_ddp(self.model), clips, generators, losses)

    def update(self) -> bool:
        """Clips the gradient and changes the weights, unless the gradient is not finite.

        Returns:
            Whether that is done, in every process alike. True too when a scaler leaves the step out
            to find its scale, which has an end at 1: a gradient that is not finite there never is.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm or math.inf)
        is_out = not norm.isfinite() and self.scaler.get_scale() <= 1  # 1 without scaling too
        if not is_out:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return not is_out

    def _compute_gradients(self, clips: list[dict]) -> tuple[dict[str, torch.Tensor], bool]:
        """Adds the gradient of the mean loss over the parts of the batch.

        Returns:
            The mean losses, and True; or the losses of the first part that is not finite in some
            process, and False.
        """
        means = {}
        for i, part in enumerate(parts_of(clips, self.accumulate), start=1):
            waits = contextlib.nullcontext()
            if i < self.accumulate and isinstance(self.model, nn.parallel.DistributedDataParallel):
                waits = self.model.no_sync()  # processes exchange the sum, with the last part
            with waits:
                with autocast(self.device_type, self.precision):
                    losses = training_losses(self.model, part)
                total = sum(losses.values())
                # Before the backward pass, in which every process takes part or none.
                if any_process(not total.isfinite()):
                    return losses, False
                self.scaler.scale(total / self.accumulate).backward()
            add_mean(means, losses, self.accumulate)
        return means, True

    def state_dict(self) -> dict:
        own = {"scaler": self.scaler.state_dict()}
        if self.non_finite is not None:
            own["non_finite"] = self.non_finite.state_dict()
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)  # which compares the number of parameters
        for group in self.optimizer.param_groups:
            if missing := self.optimizer.defaults.keys() - group.keys():
                raise ValueError(f"its optimiser is another one, without {min(missing)}")
        self.scaler.load_state_dict(state_dict["scaler"])
        if self.non_finite is not None and "non_finite" in state_dict:  # older checkpoints lack it
            self.non_finite.load_state_dict(state_dict["non_finite"])


class ResumableBestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, with the best score so far in ``model_best.json`` for a resumed run."""

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            self._score_file.unlink(missing_ok=True)  # of an older run
        elif self._score_file.exists():
            try:
                best = json.loads(self._score_file.read_text(encoding="utf-8"))
                score, step = float(best["score"]), int(best["iteration"])
                if not math.isfinite(score):
                    raise ValueError(f"a score of {score}")
            except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
                raise ValueError(
                    f"{self._score_file} is damaged: it should hold the best score so far; without "
                    "the file the next evaluation counts as the best"
                ) from error
            self._update_best(score, step)

    @property
    def _score_file(self) -> Path:
        return Path(self._checkpointer.save_dir, f"{self._file_prefix}.json")

    def _best_checking(self) -> None:
        before = self.best_iter
        super()._best_checking()  # writes the weights
        if self.best_iter != before:  # now, so that the file never speaks of weights not there
            best = {"metric": self._val_metric, "score": float(self.best_metric)}
            write_json(self._score_file, best | {"iteration": self.best_iter})


class BestModelWriter(RunCheckpointer):
    """Writes the best weights aside: training resumes from the last ones, never from these."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        pass


class ResumableEvaluation(hooks.EvalHook):
    """Detectron2's hook for evaluations that can be cut off: nothing is lost by that.

    A checkpoint is written before, of a training that begins with the evaluation.
    """

    def __init__(self, eval_period: int, eval_function: Callable, checkpointer: RunCheckpointer):
        super().__init__(eval_period, eval_function)
        self._checkpointer = checkpointer

    def _do_eval(self) -> None:
        step = self.trainer.iter
        if step < self.trainer.max_iter:  # else the final model is there
            self._checkpointer.save(f"model_{step:07d}", iteration=step, **{EVALUATION_DUE: True})
        share_buffers(self.trainer.model)  # so that the model is that of the checkpoint
        with self.trainer.stop.at_once():
            super()._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not ended by an error or by SIGTERM
            super().after_train()


class StopHook(hooks.HookBase):
    """The last hook, in every process: ends the training when any of them has had SIGTERM."""

    def __init__(self, checkpointer: RunCheckpointer):
        self._checkpointer = checkpointer

    def after_step(self) -> None:
        stop, step = self.trainer.stop, self.trainer.iter
        if not any_process(stop.requested):
            return
        name = f"model_{step:07d}"
        last = os.path.basename(self._checkpointer.get_checkpoint_file())
        if step < self.trainer.max_iter - 1 and last != f"{name}.pth":
            self._checkpointer.save(name, iteration=step)
        logging.getLogger(__name__).info(
            f"SIGTERM: stopped after iteration {step}; --resume goes on from there"
        )
        comm.synchronize()
        stop.check()


def drop_half_line(path: str) -> None:
    """Cuts off the end of a killed process's log that is no whole line; others follow it."""
    if not os.path.exists(path):
        return
    with open(path, "r+b") as stream:
        data = stream.read()
        stream.truncate(data.rfind(b"\n") + 1)


@contextlib.contextmanager
def _without_traceback() -> Iterator[None]:
    """Detectron2 logs a traceback of whatever ends a training; a user's mistake is one line.

    What fails in TensorBoard's thread is raised by its writer too.
    """

    def shorten(record: logging.LogRecord) -> bool:
        error = record.exc_info and record.exc_info[1]
        if isinstance(error, (ValueError, OSError)) and not os.environ.get("A2D_D2_DEBUG"):
            record.exc_info = None
            record.msg, record.args = f"training ends: {error}", ()
        return True

    log = logging.getLogger(TrainerBase.__module__)
    log.addFilter(shorten)
    report = threading.excepthook

    def report_others(args) -> None:
        of_tensorboard = type(args.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and issubclass(args.exc_type, OSError)):
            report(args)

    threading.excepthook = report_others
    try:
        yield
    finally:
        threading.excepthook = report
        log.removeFilter(shorten)


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
        if cfg.SOLVER.DETERMINISTIC:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
            torch.use_deterministic_algorithms(True, warn_only=True)
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
            precision=precision(cfg),
            max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
            accumulate=parts_of_a_batch(cfg),
            seed=cfg.SEED if cfg.SEED >= 0 else None,
            non_finite=NonFiniteSteps(
                Path(cfg.OUTPUT_DIR, FOLDER), cfg.dump(), cfg.SOLVER.MAX_SKIPPED_STEPS
            ),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RunCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            kept=cfg.SOLVER.CHECKPOINTS_KEPT,
            trainer=weakref.proxy(self),
        )
        self.stop = StopRequest()
        self.resumed_from = None
        self._evaluation_due = False
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Goes on from the last checkpoint of OUTPUT_DIR, or begins with the start weights.

        With a SEED the steps that follow are those of a training that was never stopped.
        """
        self.resumed_from = self.checkpointer.find_last() if resume else None
        if self.resumed_from is None:
            load_start_weights(without_ddp(self.model), self.cfg)
            self.checkpointer.forget()
            return
        try:
            more = self.checkpointer.load(self.resumed_from)
            self.start_iter = self.iter + 1
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"cannot go on from {self.resumed_from}: its state is not of this training "
                f"({error!r}); resume with the settings it began with, or begin anew without "
                "--resume"
            ) from error
        self._evaluation_due = more.get(EVALUATION_DUE, False)
        start_at(self._trainer.data_loader, self.start_iter)

    def train(self) -> None:
        """Trains to the end.

        Raises:
            Stopped: SIGTERM came; a checkpoint was written.
        """
        with self.stop, _without_traceback():
            super().train()

    def after_train(self) -> None:
        self.iter = min(self.iter, self.max_iter)  # one more if all steps were done before
        super().after_train()

    def before_train(self) -> None:
        super().before_train()
        if self._evaluation_due:  # the training ended within the last step's evaluation
            self.iter = self.storage.iter = self.start_iter - 1
            first = [isinstance(hook, ResumableEvaluation) for hook in self._hooks].index(True)
            for hook in self._hooks[first:]:
                hook.after_step()

    def build_hooks(self) -> list:
        made = [
            ResumableEvaluation(self.cfg.TEST.EVAL_PERIOD, hook._func, self.checkpointer)
            if isinstance(hook, hooks.EvalHook)
            else hook
            for hook in super().build_hooks()
        ]
        if comm.is_main_process():
            # A checkpoint comes last in its step, and scores are written in theirs: a training that
            # is resumed from it then lacks no evaluation.
            period = math.gcd(WRITER_PERIOD, self.cfg.TEST.EVAL_PERIOD)
            checkpointers = [h for h in made if isinstance(h, hooks.PeriodicCheckpointer)]
            made = [h for h in made[:-1] if h not in checkpointers]
            made += [MetricsHook(self.build_writers(), period), *checkpointers]
        if self.cfg.TEST.BEST_METRIC and comm.is_main_process():
            # After EvalHook, which sets the score, and before writer and checkpointer.
            writer = BestModelWriter(self.model, self.cfg.OUTPUT_DIR)
            metric = self.cfg.TEST.BEST_METRIC
            if len(self.cfg.DATASETS.TEST) > 1:
                metric = f"{self.cfg.DATASETS.TEST[0]}/{metric}"
            best = ResumableBestCheckpointer(self.cfg.TEST.EVAL_PERIOD, writer, metric)
            made.insert(-2, best)
        return [*made, StopHook(self.checkpointer)]

    def build_writers(self) -> list:
        return self._event_writers

    @functools.cached_property
    def _event_writers(self) -> list:
        """Made once: each opens a file."""
        metrics = os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")
        drop_half_line(metrics)
        return [
            StepPrinter(self.max_iter),
            MetricsFile(metrics),
            EventsFile(self.cfg.OUTPUT_DIR),
        ]

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


def parts_of_a_batch(cfg: CfgNode) -> int:
    parts, processes = cfg.SOLVER.ACCUMULATE, comm.get_world_size()
    if parts < 1 or cfg.SOLVER.IMS_PER_BATCH % (parts * processes):
        raise ValueError(
            f"SOLVER.ACCUMULATE is {parts}; it must be at least 1 and divide the clips of a "
            f"process, SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} over {processes}"
        )
    return parts
