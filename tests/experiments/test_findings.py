"""The paper's findings on figures made by hand."""

import pytest

from a2d_d2.experiments.findings import Finding, Quantity, find
from a2d_d2.experiments.results import summarize_records
from a2d_d2.experiments.tables import paper_tables


def finding(first, second, is_same=False):
    values = [Quantity(*x) if isinstance(x, tuple) else Quantity(x) for x in (first, second)]
    return Finding("", "", "", values[0], "", values[1], None, is_same)


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        (50.0, 45.0, "yes"),
        (50.0, 49.0, "yes"),
        (50.0, 49.1, "level"),
        (49.1, 50.0, "level"),
        (45.0, 50.0, "no"),
        ((50.0, 3.0), (45.5, 4.0), "level"),  # sqrt(9 + 16) = 5
        ((50.0, 3.0), (44.9, 4.0), "yes"),
        ((44.9, 3.0), (50.0, 4.0), "no"),
        ((50.0, 0.1), (49.5, 0.1), "level"),
    ],
)
def test_ahead(first, second, holds):
    assert finding(first, second).holds == holds


@pytest.mark.parametrize(("second", "holds"), [(47.1, "yes"), (52.9, "yes"), (46.9, "no")])
def test_the_same(second, holds):
    assert finding(50.0, second, is_same=True).holds == holds


def test_found_in_records(make_record):
    """The figures of a record: base, and a little more for other levels."""
    records = [
        make_record("full", 0, 40.0),
        make_record("full", 1, 60.0),
        make_record("no_flow", base=35.0),
        make_record("tsmt", base=51.0),
        make_record("zero_shot-dog", base=30.0),
        make_record("zero_shot-cat", base=20.0),
    ]
    results = summarize_records(records)
    found = {(x.figure, x.other_name, x.is_same): x for x in find(results)}
    assert set(found) == {
        ("joint mIoU", "without flow stream", False),
        ("action mIoU", "without flow stream", False),
        ("actor mIoU", "without flow stream", True),
        ("joint mAP", "TSMT", False),
        ("joint AP, mean of 2", "equal action scores", False),
    }
    joint = found["joint mIoU", "without flow stream", False]
    assert joint.difference == pytest.approx(50.0 - 35.0)
    assert joint.published == pytest.approx(36.9 - 29.4)
    assert joint.value.std == pytest.approx(200**0.5) and joint.other.std is None
    assert joint.holds == "yes"
    assert found["joint mAP", "TSMT", False].published == pytest.approx(55.5 - 48.9)
    assert found["joint mAP", "TSMT", False].holds == "level"
    chance = [results["zero_shot"][actor]["chance"] for actor in ("dog", "cat")]
    zero_shot = found["joint AP, mean of 2", "equal action scores", False]
    assert zero_shot.difference == pytest.approx(25.0 - sum(chance) / 2)
    (row,) = [x for x in paper_tables(results)[0].rows if x[2][0] == "action mIoU"]
    assert row[0] == "actions need motion"
    assert row[2][1:] == [
        *("full model", "62.0 ± 14.1", "without flow stream", "47.0", "+15.0", "+9.5", "yes")
    ]


def test_nothing_is_found_without_the_full_model(make_record):
    assert find(summarize_records([make_record("no_flow")])) == []
