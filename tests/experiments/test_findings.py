"""The paper's findings on figures made by hand."""

import pytest

from a2d_d2.experiments.findings import Finding, find
from a2d_d2.experiments.results import summarize_records
from a2d_d2.experiments.tables import paper_tables


def finding(first, second, is_same=False):
    values = [x if isinstance(x, list) else [x] for x in (first, second)]
    return Finding("", "", "", values[0], "", values[1], None, is_same)


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        (50.0, 45.0, "yes"),
        (50.0, 49.0, "yes"),
        (50.0, 49.1, "level"),
        (49.1, 50.0, "level"),
        (45.0, 50.0, "no"),
        # Differences 1, 5, 9: mean 5, standard deviation 4.
        ([50.0, 55.0, 60.0], [49.0, 50.0, 51.0], "yes"),
        ([49.0, 50.0, 51.0], [50.0, 55.0, 60.0], "no"),
        # 1, 3, 8: mean 4; their squares about it 9, 1, 16, so sqrt(26 / 2) = 3.6.
        ([51.0, 53.0, 58.0], [50.0, 50.0, 50.0], "yes"),
        # -1, 3, 7: mean 3, standard deviation 4.
        ([49.0, 53.0, 57.0], [50.0, 50.0, 50.0], "level"),
        # The systems vary together: the difference does not.
        ([20.0, 60.0], [18.0, 58.0], "yes"),
        ([50.0, 50.2], [49.5, 49.7], "level"),
    ],
)
def test_ahead(first, second, holds):
    assert finding(first, second).holds == holds


@pytest.mark.parametrize(
    ("second", "holds"),
    [
        *((49.1, "yes"), (50.9, "yes"), (48.9, "no"), (51.1, "no"), ([48.0], "no")),
        ([50.5, 49.5], "yes"),  # standard deviation 0.7
        ([51.0, 49.0], "undecided"),  # 1.4
        ([52.0, 50.5], "no"),  # 1.1, mean 1.25
        ([52.5, 50.0], "undecided"),  # 1.8, mean 1.25
    ],
)
def test_the_same(second, holds):
    first = [50.0] * len(second) if isinstance(second, list) else 50.0
    assert finding(first, second, is_same=True).holds == holds


def test_found_in_records(make_record):
    """The figures of a record: base, and a little more for other levels."""
    records = [
        make_record("full", 0, 40.0),
        make_record("full", 1, 60.0),
        make_record("full", 2, 80.0),
        make_record("no_flow", 0, 35.0),
        make_record("no_flow", 1, 51.0),
        make_record("no_flow", 5, 99.0),
        make_record("tsmt", base=40.5),
        make_record("zero_shot-dog", base=30.0),
        make_record("zero_shot-cat", base=20.0),
    ]
    results = summarize_records(records)
    found = {(x.figure, x.other_name, x.is_same): x for x in find(results)}
    assert set(found) == {
        ("joint mIoU", "without flow stream", False),
        ("action mIoU", "without flow stream", False),
        ("actor mIoU", "without flow stream", True),
        ("actor mIoU, default thresholds", "without flow stream", True),
        ("joint mAP", "TSMT", False),
        ("joint AP, mean of 2 actors", "equal action scores", False),
    }
    joint = found["joint mIoU", "without flow stream", False]
    assert joint.differences == pytest.approx([5.0, 9.0])  # of seeds 0 and 1
    assert joint.published == pytest.approx(36.9 - 29.4)
    assert joint.holds == "yes"
    assert found["joint mAP", "TSMT", False].published == pytest.approx(55.5 - 48.9)
    assert found["joint mAP", "TSMT", False].holds == "level"
    chance = [results["zero_shot"][actor]["chance"] for actor in ("dog", "cat")]
    zero_shot = found["joint AP, mean of 2 actors", "equal action scores", False]
    assert zero_shot.differences == pytest.approx([25.0 - sum(chance) / 2])
    (row,) = [x for x in paper_tables(results)[0].rows if x[2][0] == "action mIoU"]
    assert row[0] == "actions need motion"
    assert row[2][1:] == [
        *("full model", "62.0", "without flow stream", "55.0", "+7.0 ± 2.8", "2", "+9.5", "yes")
    ]


def test_nothing_is_found_without_the_full_model(make_record):
    assert find(summarize_records([make_record("no_flow")])) == []


def test_a_detector_may_be_known_by_its_two_stage_system(make_record):
    two_stage = make_record("no_mask_grabcut", base=38.0) | {"weights_of": "tsmt"}
    records = [make_record("full", base=40.0), two_stage]
    records.append(make_record("tshr-equal_time", base=43.0))
    found = {x.claim: x for x in find(summarize_records(records)) if x.figure == "joint mAP"}
    detector = found["ahead of the earlier detectors"]
    assert (detector.other_name, detector.holds) == ("without mask head + GrabCut", "yes")
    assert detector.published == pytest.approx(55.5 - 48.9)
    longer = found["ahead of the earlier detectors, at equal time"]
    assert (longer.other_name, longer.holds, longer.published) == ("TSHR, equal time", "no", None)
