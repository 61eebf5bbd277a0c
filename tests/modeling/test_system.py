import pytest
from detectron2.modeling import build_model

from a2d_d2.config import setup_cfg
from a2d_d2.modeling.system import predicts_actions, takes_clips
from a2d_d2.modeling.temporal import temporal_radius

STOCK = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"]
CARTESIAN = ["MODEL.ROI_HEADS.NAME", "CartesianROIHeads", "MODEL.MASK_ON", "False"]
PAIRS = ["MODEL.CLASSES", "pairs"]


@pytest.mark.parametrize(
    ("options", "clips", "actions"),
    [
        ([], True, True),
        (["MODEL.TRAIN_BRANCH", "actor"], True, False),
        (["MODEL.TRAIN_BRANCH", "separate"], True, True),
        (CARTESIAN + PAIRS, True, True),
        (STOCK, False, False),
        (STOCK + PAIRS, False, True),
        ([*STOCK[:3], "StandardROIHeads", *PAIRS], False, True),
    ],
)
def test_what_a_system_takes_and_predicts(options, clips, actions):
    cfg = setup_cfg(opts=options)
    assert (takes_clips(cfg), predicts_actions(cfg)) == (clips, actions)
    num_classes = 43 if "pairs" in options else 7
    assert num_classes == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    assert temporal_radius(cfg) == (1 if clips and "actor" not in options else 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["MODEL.CLASSES", "both"], "MODEL.CLASSES is 'both'; it must be one of actors, pairs"),
        (["MODEL.TRAIN_BRANCH", "both"], "MODEL.TRAIN_BRANCH is 'both'; it must be one of joint"),
        (["MODEL.META_ARCHITECTURE", "Net"], "MODEL.META_ARCHITECTURE is 'Net'; .*GeneralizedRCNN"),
        (["MODEL.ROI_HEADS.NAME", "Heads"], "MODEL.ROI_HEADS.NAME is 'Heads'; .*CartesianROIHeads"),
        (PAIRS, "ActorActionROIHeads are actors; set MODEL.CLASSES actors"),
        (CARTESIAN, "CartesianROIHeads are pairs; set MODEL.CLASSES pairs"),
        ([*CARTESIAN, *PAIRS, "MODEL.MASK_ON", "True"], "MODEL.MASK_ON must be False"),
        (
            [*CARTESIAN, *PAIRS, "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", "['cat']"],
            "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS must be empty",
        ),
        ([*CARTESIAN, *PAIRS, "MODEL.TRAIN_BRANCH", "actor"], "MODEL.TRAIN_BRANCH is 'actor', but"),
        (STOCK[2:], "CanonicalROIHeads knows no actions; .* use ActorActionROIHeads or Cartesian"),
        (STOCK[:2], "ActorActionROIHeads needs clips, .* use CanonicalROIHeads"),
        ([*STOCK, "MODEL.BACKBONE.RECOMPUTE", "True"], "MODEL.BACKBONE.RECOMPUTE is not read by"),
        ([*STOCK, "MODEL.TRAIN_BRANCH", "separate"], "MODEL.TRAIN_BRANCH is 'separate', but"),
        (
            [*STOCK, *PAIRS, "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS", "['cat']"],
            "MODEL.ROI_ACTION_HEAD.EXCLUDED_ACTORS must be empty",
        ),
        ([*STOCK, "MODEL.LOSS_WEIGHTS.ACTOR", "2.0"], "MODEL.LOSS_WEIGHTS is not read by"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(options, words):
    with pytest.raises(ValueError, match=words) as error:
        setup_cfg(opts=options)
    assert "\n" not in str(error.value)


def test_the_model_itself_refuses_them_too(small_cfg):
    with pytest.raises(ValueError, match="set MODEL.CLASSES actors"):
        build_model(small_cfg(*PAIRS, "MODEL.ROI_HEADS.NUM_CLASSES", 43))
