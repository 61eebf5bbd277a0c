"""Checkpoints of a training: whole or not there, the last ones kept, a broken one passed over."""

import json
import logging
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from a2d_d2.modeling.start_weights import load_trained_weights
from a2d_d2.utils.files import atomic_path, atomic_stream
from a2d_d2.utils.untrusted import read_json
from a2d_d2.utils.weights import CompressedError, SafeCheckpointer, load_torch

# Names of files: Detectron2's tag of the last checkpoint, and those before it, oldest first.
LAST_CHECKPOINT = "last_checkpoint"
RECENT_CHECKPOINTS = "recent_checkpoints.json"
FINAL_MODEL = "model_final"
_PERIODIC = re.compile(r"model_\d{7}\.pth")
# What zipfile and torch.load raise of a broken file, beside OSError.
_NO_ZIP = (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError)
_NO_ZIP += (LookupError, struct.error, zlib.error)
_NO_CHECKPOINT = (pickle.UnpicklingError, AttributeError, TypeError, *_NO_ZIP)

logger = logging.getLogger(__name__)


class RunCheckpointer(SafeCheckpointer):
    """Detectron2's checkpointer for a run that may be killed at any moment.

    A file is written beside its name and renamed, ``last_checkpoint`` too.

    Args:
        model: of the training.
        save_dir: folder of the run.
        kept: number of periodic checkpoints to keep, older ones are removed; 0 keeps all.
        checkpointables: as Detectron2's.
    """

    def __init__(self, model: nn.Module, save_dir: str, *, kept: int = 0, **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.path_manager = _AtomicFiles(self.path_manager)
        self.kept = kept

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        names = [name for name in self._recent() if name != last_filename_basename]
        names.append(last_filename_basename)
        periodic = [name for name in names if _PERIODIC.fullmatch(name)]
        surplus = periodic[: -self.kept] if self.kept else []
        # Killed between any two of these, a run finds a checkpoint, and the surplus again.
        with atomic_path(self._folder / RECENT_CHECKPOINTS, durable=True) as temporary:
            temporary.write_text(json.dumps(names), encoding="utf-8")
        super().tag_last_checkpoint(last_filename_basename)
        for name in surplus:
            (self._folder / name).unlink(missing_ok=True)

    def get_checkpoint_file(self) -> str:
        # Bytes that are no text make the name of a file that is not there.
        try:
            tag = (self._folder / LAST_CHECKPOINT).read_text("utf-8", errors="backslashreplace")
        except FileNotFoundError:
            return ""
        return os.path.join(self.save_dir, tag.strip())

    def find_last(self) -> str | None:
        """The last checkpoint that is whole, on every process; None where the run has none.

        One that is broken, or lacks weights of the model or the state of a checkpointable, is
        passed over with a warning.

        Raises:
            ValueError: none of them can be used, or some process cannot see the file.
        """
        found, problem = None, None
        if comm.is_main_process():
            found, problem = self._find_last()
        found, problem = comm.all_gather((found, problem))[0]
        if problem is None and found is not None:
            seen = comm.all_gather(Path(found).is_file())
            if not all(seen):
                problem = (
                    f"process {seen.index(False)} cannot see {found}; OUTPUT_DIR must be a folder "
                    "that all machines share"
                )
        if problem is not None:
            raise ValueError(problem)
        return found

    def forget(self) -> None:
        """See :func:`forget_checkpoints`; on the main process."""
        if self.save_to_disk:
            forget_checkpoints(self._folder)

    @property
    def _folder(self) -> Path:
        return Path(self.save_dir)

    def _recent(self) -> list[str]:
        """Names of the checkpoints that are still there, oldest first; none of a damaged list."""
        try:
            names = read_json(self._folder / RECENT_CHECKPOINTS, "names of checkpoints")
        except ValueError:
            return []
        names = [x for x in names if isinstance(x, str)] if isinstance(names, list) else []
        return [x for x in names if x == Path(x).name and (self._folder / x).exists()]

    def _find_last(self) -> tuple[str | None, str | None]:
        """The file and None, or None and what is wrong; both None where there is nothing."""
        names, problems = self._recent()[::-1], []
        if self.has_checkpoint():
            try:
                last = Path(self.get_checkpoint_file()).name
                before = names[names.index(last) + 1 :] if last in names else names
                names = [last, *before]
            except OSError as error:
                problems.append(f"cannot read {self._folder / LAST_CHECKPOINT}: {error.strerror}")
        for name in names:
            path = self._folder / name
            problem = self._problem(path)
            if problem is None:
                if problems:
                    logger.warning(f"{'; '.join(problems)}: going on from {path}, which is whole")
                return str(path), None
            problems.append(f"{path} {problem}")
        if not problems:
            return None, None
        return None, (
            f"{'; '.join(problems)}, and there is no other checkpoint; begin anew without --resume "
            "(with --eval-only: give MODEL.WEIGHTS)"
        )

    def _problem(self, path: Path) -> str | None:
        """Why a training cannot go on from a file; None where it can."""
        if problem := broken_checkpoint(path):
            return f"is broken ({problem})"
        try:
            data = load_torch(path, device="meta")
        except CompressedError:
            return "is broken (it stands for more than it holds)"
        except _NO_CHECKPOINT:
            return "is broken (not a checkpoint of tensors and plain types alone)"
        data = data if isinstance(data, dict) else {}
        for key in ("model", *self.checkpointables):
            if not isinstance(data.get(key), dict):
                return f'is not of this training (it has no "{key}")'
        given = {name: getattr(value, "shape", None) for name, value in data["model"].items()}
        own = {name: value.shape for name, value in self.model.state_dict().items()}
        if left := [name for name, shape in own.items() if given.get(name) != shape]:
            return f"is not of this model (it lacks {len(left)} tensors, {left[0]} first)"
        return None


def forget_checkpoints(folder: Path) -> None:
    """A new run begins in a folder: a resumed one must not go on from checkpoints of an older."""
    # The list first: without it the tag still tells a run that was killed here.
    names = [folder / name for name in (RECENT_CHECKPOINTS, LAST_CHECKPOINT)]
    if any(name.exists() for name in names):
        logger.warning(
            f"{folder} holds checkpoints of an older run: this one begins anew and replaces them "
            "(--resume would have gone on)"
        )
    for name in names:
        name.unlink(missing_ok=True)


def load_last_weights(model: nn.Module, cfg: CfgNode) -> None:
    """Loads the last whole checkpoint of ``OUTPUT_DIR`` for evaluation.

    Raises:
        ValueError: there is none, or it does not fill the model.
    """
    path = RunCheckpointer(model, cfg.OUTPUT_DIR).find_last()
    if path is None:
        raise ValueError(f"{cfg.OUTPUT_DIR} holds no checkpoint: nothing was trained in OUTPUT_DIR")
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.WEIGHTS", path])
    load_trained_weights(model, cfg)


def broken_checkpoint(path: Path) -> str | None:
    """What is wrong with a file of torch.save, each of whose parts has a checksum; None if whole.

    torch.load itself does not compare the checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except OSError as error:
        return error.strerror or str(error)
    except _NO_ZIP:
        return "cut off, or no checkpoint"
    return None if part is None else f"wrong checksum of its part {part}"


class _AtomicFiles:
    """A path manager whose files are whole or not there. Others of its methods are Detectron2's."""

    def __init__(self, path_manager):
        self._path_manager = path_manager

    def __getattr__(self, name: str):
        return getattr(self._path_manager, name)

    @contextmanager
    def open(self, path: str, mode: str = "r") -> Iterator:
        if mode == "wb":
            with atomic_stream(path, durable=True) as stream:
                yield stream
        elif mode == "w":
            with atomic_path(path, durable=True) as temporary, open(temporary, mode) as stream:
                yield stream
        else:
            with self._path_manager.open(path, mode) as stream:
                yield stream
