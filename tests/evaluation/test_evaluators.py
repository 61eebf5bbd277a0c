import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.evaluation import DatasetEvaluators, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict

from a2d_d2.data.registration import register_release
from a2d_d2.evaluation.evaluators import ActorActionEvaluator, DetectorEvaluators
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.evaluation.scoring import SCORE_PATHS

SCRIPT = Path(__file__).parent / "evaluate_in_processes.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def alone(case, script, tmp_path_factory):
    """The folder and the results of an evaluation in this process."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, script["evaluate"](case.root, case.file, folder)


def test_the_scores_are_those_of_the_written_predictions(case, alone):
    folder, results = alone
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = folder / "predictions.json"
    assert metrics == evaluate_files(
        case.root, "test", case.space, predictions=predictions, progress=False
    )
    # The release, the predictions and their file went through float32 and back.
    given = evaluate_files(case.root, "test", case.space, predictions=case.file, progress=False)
    assert metrics["detection"]["joint"] == pytest.approx(given["detection"]["joint"], abs=1e-6)
    assert len(json.loads(predictions.read_text())) == len(case.predictions)
    assert metrics["segmentation"]["joint"]["mIoU"] > 10
    assert results["segmentation"]["joint/mIoU"] == metrics["segmentation"]["joint"]["mIoU"]
    assert results["detection"]["actor/mAP"] == metrics["detection"]["actor"]["mAP"]


def test_the_results_suit_detectron2(alone):
    _, results = alone
    flat = flatten_results_dict(results)
    assert len(flat) == 12
    assert all(isinstance(value, float) for value in flat.values())
    assert set(flat) == set(SCORE_PATHS)
    print_csv_format(results)


def test_two_processes_equal_one(case, alone, tmp_path):
    arguments = [tmp_path / "store", case.root, case.file, tmp_path]
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), *arguments]) for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()  # one that failed leaves the other waiting
    for name in ("metrics.json", "predictions.json"):
        assert (tmp_path / name).read_text() == (alone[0] / name).read_text()


def test_reset_forgets(case, script, tmp_path):
    register_release("release_to_reset", case.root, "test", case.space)
    evaluator = ActorActionEvaluator("release_to_reset", str(tmp_path))
    work = list(script["clips_and_outputs"](case.root, case.file))
    evaluators = DatasetEvaluators([evaluator])
    evaluators.process(*zip(*work, strict=True))
    first = evaluators.evaluate()
    evaluators.reset()
    evaluators.process(*zip(*work[:3], strict=True))
    second = evaluators.evaluate()
    assert first != second
    frames = {
        (e["video_id"], e["frame"]) for e in json.loads((tmp_path / "predictions.json").read_text())
    }
    assert frames <= {(clip["video_id"], clip["frame_index"] + 1) for clip, _ in work[:3]}


def test_a_model_without_masks_is_scored_on_its_boxes(case, script, alone, tmp_path):
    register_release("release_without_masks", case.root, "test", case.space)
    evaluator = ActorActionEvaluator("release_without_masks", str(tmp_path))
    for clip, output in script["clips_and_outputs"](case.root, case.file):
        output["instances"].remove("pred_masks")
        evaluator.process([clip], [output])
    assert evaluator.evaluate()["detection"] == alone[1]["detection"]


def test_a_detector_of_pairs_is_scored_as_actors_with_actions(case, script, tmp_path):
    register_release("release_of_pairs", case.root, "test", case.space)
    evaluator = ActorActionEvaluator("release_of_pairs", str(tmp_path))
    evaluators = DetectorEvaluators([evaluator], case.space, "pairs")
    expected = []
    for clip, output in script["clips_and_outputs"](case.root, case.file):
        instances = output["instances"]
        pairs = torch.arange(len(instances)) % len(case.space.valid_pairs)
        instances.pred_classes = pairs
        instances.remove("action_scores")
        evaluators.process([clip], [output])
        for pair, score in zip(pairs.tolist(), instances.scores.tolist(), strict=True):
            actor, action = case.space.valid_pairs[pair]
            scores = [float(i == action) for i in range(case.space.num_actions)]
            expected.append((case.space.actors[actor], pytest.approx(score), scores))
    evaluators.evaluate()
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert [(e["actor"], e["score"], e["action_scores"]) for e in entries] == expected
    assert len({actor for actor, _, _ in expected}) > 1
