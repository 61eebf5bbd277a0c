"""Runs the evaluator as one of two processes: ``... RANK STORE ROOT P.json OUTPUT``."""

import sys

import torch
from detectron2.data.samplers import InferenceSampler
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from a2d_d2.data.layout import annotated_frames, annotation_path, read_annotation, read_videoset
from a2d_d2.data.registration import register_release
from a2d_d2.evaluation.evaluators import ActorActionEvaluator
from a2d_d2.evaluation.predictions import decode_mask, read_predictions
from a2d_d2.label_space import LabelSpace


def clips_and_outputs(root, predictions):
    """What a mapper and a model would give for each annotated frame of the test split."""
    found = read_predictions(predictions, LabelSpace.a2d())
    for video_id in sorted(v.video_id for v in read_videoset(root) if v.split == "test"):
        for index in annotated_frames(root, video_id):
            path = annotation_path(root, video_id, index)
            clip = {"video_id": video_id, "frame_index": index, "label_map_file": str(path)}
            size = read_annotation(path).label_map.shape
            instances = Instances(size)
            frame = found.get((video_id, index))
            instances.pred_boxes = Boxes(torch.tensor(frame.boxes if frame else []).reshape(-1, 4))
            instances.scores = torch.tensor(frame.scores if frame else []).float()
            instances.pred_classes = torch.tensor(frame.actors if frame else [], dtype=torch.int64)
            instances.action_scores = torch.tensor(frame.action_scores if frame else []).float()
            instances.action_scores = instances.action_scores.reshape(-1, 9)
            masks = [torch.tensor(decode_mask(s)) for s in frame.segmentations] if frame else []
            instances.pred_masks = torch.stack(masks) if masks else torch.zeros(0, *size).bool()
            yield clip, {"instances": instances}


def evaluate(root, predictions, output):
    """Evaluates this process's share of the frames, the last one also twice."""
    register_release("release_to_evaluate", root, "test", LabelSpace.a2d())
    evaluator = ActorActionEvaluator("release_to_evaluate", output)
    work = list(clips_and_outputs(root, predictions))
    for i in [*InferenceSampler(len(work)), len(work) - 1]:
        evaluator.process([work[i][0]], [work[i][1]])
    results = evaluator.evaluate()
    assert (results is not None) == comm.is_main_process()
    return results


if __name__ == "__main__":
    rank, store, *arguments = sys.argv[1:]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=int(rank), world_size=2
    )
    evaluate(*arguments)
    torch.distributed.destroy_process_group()
