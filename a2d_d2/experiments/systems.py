"""The systems of the paper's tables, and which table needs which."""

from dataclasses import dataclass, replace

from a2d_d2.config import system_options
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.repository import REPOSITORY

CONFIGS = REPOSITORY / "configs"
SUITES = ("table1", "table2", "table3", "zero_shot")  # the paper's; "all" is these
EQUAL_TIME = "equal_time"
ZERO_SHOT = "zero_shot-"


@dataclass(frozen=True)
class System:
    """One row of a table.

    Attributes:
        name: in commands, folders and records.
        title: in tables.
        suites: those that need it.
        config: file of its keys under configs/; "" for none.
        own_options: KEY VALUE pairs instead of a file.
        has_masks: whether it segments; the others are scored for detection alone.
        weights_of: the system whose training it shares; "" trains itself.
        is_shown: whether its predictions are in the qualitative grid.
        longer_of: the system of which this is a training with as many steps as take the time of
            the full model's; "" trains for the steps of the base.
    """

    name: str
    title: str
    suites: tuple[str, ...]
    config: str = ""
    own_options: tuple[str, ...] = ()
    has_masks: bool = True
    weights_of: str = ""
    is_shown: bool = False
    longer_of: str = ""

    def options(self) -> list[str]:
        """The KEY VALUE pairs that turn the base into this system, its OUTPUT_DIR left out."""
        if not self.config:
            return list(self.own_options)
        options = system_options(CONFIGS / self.config)
        pairs = zip(options[::2], options[1::2], strict=True)
        return [text for pair in pairs if pair[0] != "OUTPUT_DIR" for text in pair]


_PAPER = (
    System("full", "full model", (*SUITES, EQUAL_TIME), is_shown=True),
    System("tsct", "TSCT", ("table2",), "baselines/tsct.yaml", has_masks=False),
    System("tshr", "TSHR", ("table2",), "baselines/tshr.yaml", has_masks=False),
    System("tsmt", "TSMT", ("table2",), "baselines/tsmt.yaml", has_masks=False),
    System(
        "mask_rcnn",
        "Mask R-CNN on pairs",
        ("table3",),
        "baselines/mask_rcnn.yaml",
        is_shown=True,
    ),
    System(
        "no_mask_grabcut",
        "without mask head + GrabCut",
        ("table3",),
        "ablations/no_mask_grabcut.yaml",
        weights_of="tsmt",  # the same network: both lack the mask head
    ),
    System("no_temporal", "without temporal context", ("table3",), "ablations/no_temporal.yaml"),
    System("no_flow", "without flow stream", ("table3",), "ablations/no_flow.yaml"),
    System(
        "separate_training",
        "without joint training",
        ("table3",),
        "ablations/separate_training.yaml",
    ),
)


# Each other system for the full model's time: longer, but for both stages of separate training,
# which take more together.
_LONGER = tuple(
    replace(
        system,
        name=f"{system.name}-{EQUAL_TIME}",
        title=f"{system.title}, equal time",
        suites=(EQUAL_TIME,),
        weights_of=system.weights_of and f"{system.weights_of}-{EQUAL_TIME}",
        is_shown=False,
        longer_of=system.name,
    )
    for system in _PAPER
    if system.name != "full"
)


def all_systems(label_space: LabelSpace) -> dict[str, System]:
    """Every system by name: of the tables, of equal time, then one zero-shot network an actor."""
    zero_shot = (
        System(
            ZERO_SHOT + actor,
            f"zero-shot, {actor} held out",
            ("zero_shot",),
            own_options=("MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", repr([actor])),
        )
        for actor in label_space.actors
    )
    return {system.name: system for system in (*_PAPER, *_LONGER, *zero_shot)}


def suite_systems(suite: str, label_space: LabelSpace) -> list[System]:
    """The systems of one suite, or of "all" of the paper, in their order.

    Raises:
        ValueError: there is no such suite.
    """
    if suite not in (*SUITES, EQUAL_TIME, "all"):
        names = ", ".join((*SUITES, EQUAL_TIME))
        raise ValueError(f"there is no suite {suite!r}; use {names} or all")
    wanted = SUITES if suite == "all" else (suite,)
    return [
        system
        for system in all_systems(label_space).values()
        if any(name in system.suites for name in wanted)
    ]
