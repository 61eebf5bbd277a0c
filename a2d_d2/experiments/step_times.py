"""Seconds that a training step of each system takes, for trainings of equal time."""

import json
import tempfile
import time
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from statistics import median

from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from a2d_d2.benchmark.common import interleave, machine, seconds_of
from a2d_d2.engine.stages import training_stages
from a2d_d2.engine.trainer import ActorActionTrainer
from a2d_d2.utils.files import write_json

REFERENCE = "full"
_WARM_UP = 3  # steps
_ROUNDS = 5
_STEPS = 12  # in each round


class StepTimes:
    """Seconds a step, in a file: once measured they stay, and with them the lengths of trainings.

    Args:
        path: of the JSON file.
    """

    def __init__(self, path: Path):
        self.path = path

    def factor(self, name: str) -> float:
        """How many steps of the system ``name`` take as long as one of the full model.

        Raises:
            ValueError: the file is missing, or is none.
        """
        try:
            return self._seconds[REFERENCE] / self._seconds[name]
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(
                f"{self.path} does not say how long a step of {name} takes; delete it, and run "
                "--suite equal_time to measure it again"
            ) from error

    @cached_property
    def _seconds(self) -> dict[str, float]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))["seconds"]
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path} is missing; run --suite equal_time, which measures it"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} holds no times of steps; delete it") from error

    def lacks(self, names: Collection[str]) -> list[str]:
        """Those of the systems ``names`` that have not been measured."""
        return [name for name in names if not self.path.exists() or name not in self._seconds]

    def measure(self, configs: Mapping[str, CfgNode]) -> None:
        """Times training steps of each configuration in turns, and writes the file.

        Loading of data counts, checkpoints and evaluation do not. One process: what several
        processes share shortens the steps of all systems alike. Times that the file has stay as
        they are; new ones are scaled by what the reference takes now.

        Args:
            configs: of each system, the reference included; their data is prepared. Where a
                training has two stages, a step is one of each.
        """
        with tempfile.TemporaryDirectory() as folder:
            ways = {
                (name, stage): _Training(of_stage, folder).seconds_per_step
                for name, cfg in configs.items()
                for stage, of_stage in enumerate(training_stages(cfg))
            }
            seconds = interleave(ways, _ROUNDS, description="seconds a step")
        found = dict.fromkeys(configs, 0.0)
        for (name, _), values in seconds.items():
            found[name] += median(values)
        known = self._seconds if self.path.exists() else {}
        scale = known.get(REFERENCE, found[REFERENCE]) / found[REFERENCE]
        result = {name: round(scale * value, 4) for name, value in found.items()} | known
        write_json(self.path, {"seconds": result, "machine": machine()})
        self.__dict__.pop("_seconds", None)


class _Training:
    """A training that is begun again and again."""

    def __init__(self, cfg: CfgNode, folder: str):
        cfg = cfg.clone()
        cfg.merge_from_list(["OUTPUT_DIR", folder, "DATASETS.TEST", "()"])
        cfg.merge_from_list(["TEST.EVAL_PERIOD", "0", "TEST.BEST_METRIC", ""])
        self.trainer = ActorActionTrainer(cfg)._trainer
        self.trainer.model.train()
        self.storage = EventStorage(0)
        self._run(_WARM_UP)

    def seconds_per_step(self) -> float:
        return seconds_of(lambda: self._run(_STEPS), time.perf_counter) / _STEPS

    def _run(self, steps: int) -> None:
        with self.storage:
            for _ in range(steps):
                self.trainer.iter = self.storage.iter
                self.trainer.run_step()
                self.storage.step()
