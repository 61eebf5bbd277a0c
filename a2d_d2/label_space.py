"""Actors, actions, their valid pairs, joint ids and colours: the only codec of ids in the project.

Inside the program actors and actions are 0-based indices (background is Detectron2's last index).
At the border (annotations, label maps, predictions as PNG) stands the *joint id*
``base * (actor + 1) + (action + 1)``, 0 being background; A2D's base is 10.
"""

import colorsys
import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from a2d_d2.utils.untrusted import read_yaml

A2D_ACTIONS = (
    *("climbing", "crawling", "eating", "flying", "jumping"),
    *("rolling", "running", "walking", "none"),
)


_KEYS = ("name", "actors", "actions", "valid", "coco")
# Joint ids are stored in label maps of at most 16 bits, and scores keep a confusion of all pairs.
_MAX_ID, _MAX_PAIRS = 2**16 - 1, 4096


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set.

    Attributes:
        name: of the data set, for messages.
        actors: names of the actor classes X, in order of their 0-based index.
        actions: names of the action classes Y, in order of their 0-based index.
        valid_pairs: the (actor, action) index pairs that occur, in ascending order.
        coco_names: for an actor, the COCO class whose weights may start it.
    """

    name: str
    actors: tuple[str, ...]
    actions: tuple[str, ...]
    valid_pairs: tuple[tuple[int, int], ...]
    coco_names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for kind, names in (("actors", self.actors), ("actions", self.actions)):
            _check_names(self.name, kind, names)
        _check_count(self.name, len(self.actors), len(self.actions))
        able = {actor for actor, _ in self.valid_pairs}
        for i, name in enumerate(self.actors):
            if i not in able:
                raise ValueError(f"label space {self.name}: {name} has no valid action")
        for name in self.coco_names:
            if name not in self.actors:
                raise ValueError(f"label space {self.name}: coco names {name!r}, not an actor")

    # ---------------------------------------------------------------- sources

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def a2d() -> "LabelSpace":
        """The 7 actors, 9 actions and 43 valid pairs of A2D (Xu et al., CVPR 2015)."""
        valid = {
            "adult": "climbing crawling eating jumping rolling running walking none",
            "baby": "climbing crawling rolling walking none",
            "ball": "flying jumping rolling none",
            "bird": "climbing eating flying jumping rolling walking none",
            "car": "flying jumping rolling running none",
            "cat": "climbing eating jumping rolling running walking none",
            "dog": "crawling eating jumping rolling running walking none",
        }
        return LabelSpace.from_dict(
            {
                "name": "A2D",
                "actors": list(valid),
                "actions": list(A2D_ACTIONS),
                "valid": {actor: names.split() for actor, names in valid.items()},
                "coco": {"adult": "person", "baby": "person", "ball": "sports ball"}
                | {name: name for name in ("bird", "car", "cat", "dog")},
            }
        )

    @classmethod
    def load(cls, path: str | os.PathLike | None) -> "LabelSpace":
        """Reads the label space of a YAML file; an empty ``path`` gives A2D's.

        The file holds ``actors`` and ``actions`` (lists of names), and optionally ``name``,
        ``valid`` (actor name to the list of its actions; an actor left out, or the whole key,
        allows every action) and ``coco`` (actor name to the COCO class that starts its weights).

        Raises:
            ValueError: the file cannot be read or is wrong; names it and says why.
        """
        if not path:
            return cls.a2d()
        value = read_yaml(path, "label space")
        if not isinstance(value, dict):
            raise ValueError(f"label space {path}: expected the keys actors and actions")
        try:
            return cls.from_dict({"name": os.path.splitext(os.path.basename(path))[0]} | value)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, value: Mapping) -> "LabelSpace":
        """Makes a label space of the keys that :meth:`load` describes."""
        name = str(value.get("name", "custom"))
        unknown = [str(key) for key in value if key not in _KEYS]
        if unknown:
            raise ValueError(f"label space {name}: unknown key {', '.join(sorted(unknown))}")
        for key in ("actors", "actions"):
            if not isinstance(value.get(key), list):
                raise ValueError(f"label space {name}: {key} must be a list of names")
        for key in ("valid", "coco"):
            if not isinstance(value.get(key) or {}, dict):
                raise ValueError(f"label space {name}: {key} must map actor names")
        actors, actions = tuple(value["actors"]), tuple(value["actions"])
        for kind, names in (("actors", actors), ("actions", actions)):
            _check_names(name, kind, names)
        valid = value.get("valid") or {}
        for actor, names in valid.items():
            if actor not in actors:
                raise ValueError(f"label space {name}: valid names {actor!r}, not an actor")
            if not isinstance(names, list):
                raise ValueError(f"label space {name}: valid.{actor} must be a list of actions")
            for action in names:
                if action not in actions:
                    raise ValueError(f"label space {name}: {action!r} of {actor} is not an action")
        _check_count(name, len(actors), len(actions))
        pairs = tuple(
            (i, j)
            for i, actor in enumerate(actors)
            for j, action in enumerate(actions)
            if action in valid.get(actor, actions)
        )
        return cls(name, actors, actions, pairs, dict(value.get("coco") or {}))

    # ---------------------------------------------------------------- sizes and masks

    @property
    def num_actors(self) -> int:
        return len(self.actors)

    @property
    def num_actions(self) -> int:
        return len(self.actions)

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """(|X|, |Y|) bool: whether the pair is valid."""
        table = np.zeros((self.num_actors, self.num_actions), dtype=bool)
        table[tuple(np.transpose(self.valid_pairs))] = True
        table.setflags(write=False)
        return table

    # ---------------------------------------------------------------- joint ids

    @functools.cached_property
    def base(self) -> int:
        """Factor between the actor and the action part of a joint id: a power of ten."""
        return 10 ** len(str(self.num_actions))

    @functools.cached_property
    def joint_ids(self) -> tuple[int, ...]:
        """The joint ids of all |X| * |Y| pairs, valid or not, ascending."""
        return tuple(
            self.joint_id(i, j) for i in range(self.num_actors) for j in range(self.num_actions)
        )

    @property
    def max_id(self) -> int:
        """The largest joint id; 79 in A2D."""
        return self.joint_id(self.num_actors - 1, self.num_actions - 1)

    def joint_id(self, actor: int, action: int) -> int:
        """The joint id of a pair of 0-based indices."""
        if not (0 <= actor < self.num_actors and 0 <= action < self.num_actions):
            raise ValueError(f"{self.name} has no actor {actor} with action {action}")
        return self.base * (int(actor) + 1) + int(action) + 1

    def split_id(self, joint_id: int) -> tuple[int, int]:
        """The 0-based (actor, action) of a joint id other than background.

        Raises:
            ValueError: ``joint_id`` is 0 or none of the |X| * |Y| pairs.
        """
        actor, action = divmod(int(joint_id), self.base)
        if joint_id != int(joint_id) or not (
            1 <= actor <= self.num_actors and 1 <= action <= self.num_actions
        ):
            raise ValueError(f"{joint_id:g} is not a joint id of {self.name}")
        return actor - 1, action - 1

    def is_valid_id(self, joint_id: int) -> bool:
        """Whether ``joint_id`` is that of a valid pair (background is not)."""
        try:
            return bool(self.valid[self.split_id(joint_id)])
        except ValueError:
            return False

    @property
    def label_map_dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every joint id: uint8, or uint16."""
        return np.min_scalar_type(self.max_id)

    # ---------------------------------------------------------------- names

    def pair_name(self, actor: int, action: int) -> str:
        """ "dog-running" """
        return f"{self.actors[actor]}-{self.actions[action]}"

    @functools.cached_property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the valid pairs, in their order."""
        return tuple(self.pair_name(*pair) for pair in self.valid_pairs)

    def actor_index(self, name: str) -> int:
        """The 0-based index of an actor name; ValueError lists the names."""
        return _index(self.actors, name, "actor", self.name)

    def action_index(self, name: str) -> int:
        """The 0-based index of an action name; ValueError lists the names."""
        return _index(self.actions, name, "action", self.name)

    # ---------------------------------------------------------------- colours

    @functools.cached_property
    def palette(self) -> np.ndarray:
        """(max_id + 1, 3) uint8 RGB by joint id, unused ids black.

        The hue tells the actor; the action goes from dark over pure to pale. With A2D's sizes these
        are the colours of its ``col`` label maps.
        """
        colors = np.zeros((self.max_id + 1, 3), dtype=np.uint8)
        hue_step = 54 if self.num_actors <= 7 else 360 / (self.num_actors + 1)
        half = self.num_actions // 2 + 1
        for joint_id in self.joint_ids:
            actor, action = self.split_id(joint_id)
            step = action + 1
            saturation = 1.0 if step <= half else 1 - (step - half) / half
            value = min(1.0, step / half)
            rgb = colorsys.hsv_to_rgb(hue_step * actor / 360 % 1, saturation, value)
            colors[joint_id] = [min(255, int(255 * c) + 1) for c in rgb]
        colors.setflags(write=False)
        return colors

    def color(self, joint_id: int) -> tuple[int, int, int]:
        """RGB in 0..255 of a joint id."""
        red, green, blue = self.palette[joint_id]
        return int(red), int(green), int(blue)

    # ---------------------------------------------------------------- files

    def to_dict(self) -> dict:
        """The plain mapping that :meth:`from_dict` reads."""
        valid = {
            actor: [action for j, action in enumerate(self.actions) if self.valid[i, j]]
            for i, actor in enumerate(self.actors)
        }
        return {
            "name": self.name,
            "actors": list(self.actors),
            "actions": list(self.actions),
            "valid": valid,
            "coco": dict(self.coco_names),
        }


def _check_names(space: str, kind: str, names: Sequence[str]) -> None:
    """ValueError where the names of actors or actions (``kind``) cannot be used."""
    if not names:
        raise ValueError(f"label space {space}: no {kind}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"label space {space}: {name!r} in {kind} is not a name; put names that YAML takes "
                "for something else (off, no, 12) in quotes"
            )
        if not name.isprintable():
            raise ValueError(
                f"label space {space}: {name!r} in {kind} has characters that cannot be shown"
            )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"label space {space}: {kind} repeat {', '.join(sorted(repeated))}")


def _check_count(space: str, num_actors: int, num_actions: int) -> None:
    """ValueError where there are more classes than ids."""
    max_id = 10 ** len(str(num_actions)) * num_actors + num_actions
    if max_id > _MAX_ID or num_actors * num_actions > _MAX_PAIRS:
        raise ValueError(
            f"label space {space}: {num_actors} actors with {num_actions} actions are too many: "
            f"at most {_MAX_PAIRS} pairs, and joint ids up to {_MAX_ID}"
        )


def _index(names: Sequence[str], name: str, kind: str, space: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise ValueError(f"{space} has no {kind} {name!r}; it has {', '.join(names)}") from None
