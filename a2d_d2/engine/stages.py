"""The stages of a training: one, or two where both branches are trained apart (section 4.3)."""

import logging
import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from a2d_d2.data.build import check_registered
from a2d_d2.engine.checkpoint import FINAL_MODEL, LAST_CHECKPOINT, forget_checkpoints
from a2d_d2.engine.trainer import ActorActionTrainer

ACTOR_STAGE = "actor_stage"  # folder of the first stage in OUTPUT_DIR


def training_stages(cfg: CfgNode) -> list[CfgNode]:
    """The configurations to train one after the other, for SOLVER.MAX_ITER steps each.

    ``MODEL.TRAIN_BRANCH separate`` gives two: the actor branch to its end in
    ``OUTPUT_DIR/actor_stage``, then in ``OUTPUT_DIR`` the action branch on that actor branch,
    frozen. The first is evaluated only if ``TEST.EVAL_PERIOD`` asks for it. Everything else is one
    stage, as it stands.
    """
    if cfg.MODEL.TRAIN_BRANCH != "separate":
        return [cfg]
    folder = os.path.join(cfg.OUTPUT_DIR, ACTOR_STAGE)
    actor, action = cfg.clone(), cfg.clone()
    actor.merge_from_list(
        ["MODEL.TRAIN_BRANCH", "actor", "OUTPUT_DIR", folder, "TEST.BEST_METRIC", ""]
    )
    if cfg.TEST.EVAL_PERIOD == 0:
        actor.merge_from_list(["DATASETS.TEST", ()])
    weights = os.path.join(folder, f"{FINAL_MODEL}.pth")
    action.merge_from_list(["MODEL.TRAIN_BRANCH", "action", "MODEL.WEIGHTS", weights])
    return [actor, action]


def train_stages(cfg: CfgNode, *, resume: bool) -> None:
    """Trains every stage of ``cfg``.

    Args:
        resume: go on in the last stage that has a checkpoint; those before it are finished.
            Otherwise begin anew, whatever OUTPUT_DIR holds.
    """
    stages = training_stages(cfg)
    check_registered("DATASETS.TEST", cfg.DATASETS.TEST)
    if not resume and comm.is_main_process():
        for stage in stages:  # before anything that takes time and may be stopped
            forget_checkpoints(Path(stage.OUTPUT_DIR))
    for name in cfg.DATASETS.TEST if len(stages) > 1 else ():
        DatasetCatalog.get(name)  # a fault shows now, not after the first stage
    if resume:
        tags = [os.path.join(stage.OUTPUT_DIR, LAST_CHECKPOINT) for stage in stages]
        begun = [i for i, tag in enumerate(tags) if os.path.exists(tag)]
        stages = stages[max(begun, default=0) :]
    for number, stage in enumerate(stages, start=1):
        if len(stages) > 1:
            logging.getLogger(__name__).info(
                f"Stage {number} of {len(stages)}: MODEL.TRAIN_BRANCH {stage.MODEL.TRAIN_BRANCH} "
                f"in {stage.OUTPUT_DIR}"
            )
        _train(stage, resume=resume, is_last=number == len(stages))
        comm.synchronize()  # the next stage reads what the main process wrote


def _train(cfg: CfgNode, *, resume: bool, is_last: bool) -> None:
    trainer = ActorActionTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    source = trainer.resumed_from
    is_done = source is not None and trainer.start_iter >= trainer.max_iter
    if is_done and os.path.basename(source) != f"{FINAL_MODEL}.pth":
        # Stopped after its last step, before its final model was whole.
        trainer.checkpointer.save(FINAL_MODEL, iteration=trainer.start_iter - 1)
    if is_last or not is_done:
        trainer.train()
