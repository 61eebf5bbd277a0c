"""The exported programs against the model, on other frames than they were traced with."""

import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.modeling import build_model

from a2d_d2.config import setup_cfg, system_options
from a2d_d2.data.flow import flow_to_input
from a2d_d2.deployment.export import export_model, trace_programs
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.temporal import temporal_radius

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/synthetic/R18_FPN.yaml"
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_ACTION_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "INPUT.MIN_SIZE_TEST": 64,
    "TEST.DETECTIONS_PER_IMAGE": 12,
}
FRAME_SIZE, INPUT_SIZE = (45, 61), (64, 87)  # neither is what the network pads to

# Runs where neither this package nor Detectron2 can be imported.
SCRIPT = """
import sys
sys.modules["a2d_d2"] = sys.modules["detectron2"] = None
import torch, torchvision
folder = sys.argv[1]
images, flow, neighbours = torch.load(f"{folder}/inputs.pt")
with torch.inference_mode():
    features = torch.jit.load(f"{folder}/features.pt")(images, flow)
    detections = torch.jit.load(f"{folder}/detect.pt")(*features, neighbours)
torch.save(detections, f"{folder}/outputs.pt")
"""


@pytest.fixture
def make_cfg():
    """make_cfg("KEY", value, ...): the synthetic config, small, with keys changed."""

    def make(*options):
        options = [*(x for pair in SMALL.items() for x in pair), *options]
        return setup_cfg(str(CONFIG), [str(x) for x in options])

    return make


def make_clip(neighbours, seed):
    """A clip of noise as ClipDatasetMapper gives it."""
    random = np.random.default_rng(seed)
    frames = max(max(row) for row in neighbours) + 1
    flows = random.normal(0, 3, (frames, *INPUT_SIZE, 2)).astype(np.float32)
    images = random.integers(0, 256, (frames, 3, *INPUT_SIZE), dtype=np.uint8)
    # Of one colour with patches, so that frames differ in more than noise.
    images[:, :, 10:40, 20 : 30 + 5 * seed] = 20 * seed
    middle = len(neighbours[0]) // 2
    return {
        "image": torch.from_numpy(images),
        "flow": torch.stack([torch.from_numpy(flow_to_input(flow)) for flow in flows]),
        "key_positions": [row[middle] for row in neighbours],
        "neighbours": torch.tensor(neighbours),
        "height": FRAME_SIZE[0],
        "width": FRAME_SIZE[1],
    }


def expected(model, clip):
    with torch.no_grad():
        (output,) = model([clip])
    fields = output["instances"].get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}


def assert_same(detections, names, wanted):
    assert set(names) == set(wanted)
    assert len(wanted["scores"]) > 0
    for name, value in zip(names, detections, strict=True):
        assert value.dtype == wanted[name].dtype, name
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-5, msg=name)


def reloaded(program):
    stream = io.BytesIO()
    torch.jit.save(program, stream)
    return torch.jit.load(io.BytesIO(stream.getvalue()))


SYSTEMS = {
    "full": [],
    "two temporal layers": ["MODEL.TEMPORAL.NUM_LAYERS", 2, "INPUT.CLIP.LENGTH", 5],
    "no flow": ["MODEL.FLOW.ENABLED", False],
    "no temporal": ["MODEL.TEMPORAL.ENABLED", False],
    "no masks": ["MODEL.MASK_ON", False],
    "actors alone": ["MODEL.TRAIN_BRANCH", "actor"],
    "pairs": system_options("configs/baselines/tsct.yaml"),
    "hierarchical": system_options("configs/baselines/tshr.yaml"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_programs_give_what_the_model_gives(make_cfg, system):
    cfg = make_cfg(*SYSTEMS[system])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    radius = temporal_radius(cfg)
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=radius)
    extract, detect = reloaded(programs.features), reloaded(programs.detect)
    whole = tuple(range(2 * radius + 1))
    for seed, row in enumerate([whole, tuple(i - radius if i >= radius else -1 for i in whole)]):
        clip = make_clip([row], seed + 1)
        inputs = [clip["image"]] + ([] if model.flow_backbone is None else [clip["flow"]])
        with torch.no_grad():
            features = extract(*inputs)
            assert len(features) == len(programs.feature_names)
            detections = detect(*features, clip["neighbours"])
        assert_same(detections, programs.detection_names, expected(model, clip))


def test_frames_can_be_computed_one_by_one(make_cfg):
    """As a stream does it: the pyramids of frames computed apart, put together for a window."""
    cfg = make_cfg()
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    clip = make_clip([(0, 1, 2)], 3)
    with torch.no_grad():
        single = [
            programs.features(clip["image"][i : i + 1], clip["flow"][i : i + 1]) for i in range(3)
        ]
        features = [torch.cat(x) for x in zip(*single, strict=True)]
        detections = programs.detect(*features, clip["neighbours"])
    assert_same(detections, programs.detection_names, expected(model, clip))


@pytest.mark.parametrize("which", ["images", "flow"])
def test_frames_of_another_size_are_refused(make_cfg, which):
    model = build_model(make_cfg()).eval()
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    flow = torch.zeros(1, 3, *INPUT_SIZE)
    inputs = {"images": flow.byte(), "flow": flow}
    extract = reloaded(programs.features)
    extract(*inputs.values())
    for wrong, message in (
        (inputs[which][..., :-1], "takes frames and flow of 64 x 87 pixels .*got 64 x 86"),
        (inputs[which][:, :2], r"must be \(F, 3, h, w\), got \[1, 2, 64, 87\]"),
    ):
        with pytest.raises(torch.jit.Error, match=message):
            extract(*{**inputs, which: wrong}.values())


def test_images_and_flow_of_another_type_are_refused(make_cfg):
    model = build_model(make_cfg()).eval()
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    flow = torch.zeros(1, 3, *INPUT_SIZE)
    images = flow.byte()
    extract = reloaded(programs.features)
    for wrong in ((flow, images), (images, images), (flow, flow), (images, flow.double())):
        with pytest.raises(torch.jit.Error, match="must be uint8, and flow float32"):
            extract(*wrong)


def test_flow_of_other_frames_than_the_images_is_refused(make_cfg):
    model = build_model(make_cfg()).eval()
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    frames = torch.zeros(3, 3, *INPUT_SIZE)
    with pytest.raises(torch.jit.Error, match="got 3 images and flow of 2 frames"):
        reloaded(programs.features)(frames.byte(), frames[:2])


@pytest.mark.parametrize(
    "neighbours, message",
    [
        ([[0, 1, 3]], r"from 0 to 2 in the features of 3 frames, .*got \[0, 1, 3\]"),
        ([[-2, 1, 2]], r"-1 where there is none.*got \[-2, 1, 2\]"),
        ([[0, -1, 2]], r"but not in the middle, got \[0, -1, 2\]"),
        ([[-1, 3, -1]], r"got \[-1, 3, -1\]"),
        ([[0, 1]], r"must be \(1, 3\), the key frame in the middle, got \[1, 2\]"),
        ([[0, 1, 2], [0, 1, 2]], r"must be \(1, 3\), .*got \[2, 3\]"),
        ([0, 1, 2], r"must be \(1, 3\), .*got \[3\]"),
        ([[0.0, 1.0, 2.0]], "must be int64"),
    ],
    ids=str,
)
def test_neighbours_that_are_none_are_refused(programs_of_three, neighbours, message):
    detect, features = programs_of_three
    detect(*features, torch.tensor([[-1, 2, -1]]))
    with pytest.raises(torch.jit.Error, match=message):
        detect(*features, torch.tensor(neighbours))


def test_features_of_different_frames_are_refused(programs_of_three):
    detect, (*features, last) = programs_of_three
    with pytest.raises(torch.jit.Error, match="got some of 3 and some of 2"):
        detect(*features, last[:2], torch.tensor([[0, 1, 1]]))


@pytest.fixture(scope="module")
def programs_of_three():
    """The second program, reloaded, and the pyramids of three frames."""
    cfg = setup_cfg(str(CONFIG), [str(x) for pair in SMALL.items() for x in pair])
    model = build_model(cfg).eval()
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    clip = make_clip([(0, 1, 2)], 1)
    with torch.no_grad():
        features = programs.features(clip["image"], clip["flow"])
    return reloaded(programs.detect), features


def test_programs_traced_without_any_detection_find_some(make_cfg, monkeypatch):
    """A trained model may see nothing in the noise that it is traced on."""
    torch.manual_seed(0)
    model = build_model(make_cfg()).eval()
    clip = make_clip([(0, 1, 2)], 1)
    blank = clip | {
        "image": torch.zeros_like(clip["image"]),
        "flow": torch.zeros(3, 3, *INPUT_SIZE),
    }
    model.roi_heads.box_predictor.test_score_thresh = float(expected(model, blank)["scores"].max())
    assert len(expected(model, blank)["scores"]) == 0
    randint = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: randint(*args, **kwargs) * 0)
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: torch.zeros(*args))
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    for given in (clip, blank):
        with torch.no_grad():
            features = programs.features(given["image"], given["flow"])
            detections = programs.detect(*features, given["neighbours"])
        if given is clip:
            assert_same(detections, programs.detection_names, expected(model, given))
        else:
            assert [len(x) for x in detections] == [0] * len(detections)


def test_each_weight_is_in_one_program(make_cfg):
    model = build_model(make_cfg()).eval()
    programs = trace_programs(model, frame_size=FRAME_SIZE, input_size=INPUT_SIZE, radius=1)
    names = [
        {name.removeprefix("model.") for name, _ in program.named_parameters()}
        for program in (programs.features, programs.detect)
    ]
    assert not names[0] & names[1]
    assert names[0] | names[1] == {name for name, _ in model.named_parameters()}
    assert {name.split(".")[0] for name in names[0]} == {"backbone", "flow_backbone"}


def test_files_run_in_a_process_without_the_package(make_cfg, tmp_path):
    torch.manual_seed(0)
    model = build_model(make_cfg()).eval()
    weights = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg = make_cfg("MODEL.WEIGHTS", weights)
    height, width = FRAME_SIZE
    description = export_model(cfg, tmp_path, height=height, width=width)
    assert json.loads((tmp_path / "export.json").read_text()) == description
    assert tuple(description["input_size"]) == INPUT_SIZE
    assert description["window"] == {
        "length": cfg.INPUT.CLIP.LENGTH,
        "stride": cfg.INPUT.CLIP.STRIDE,
        "radius": 1,
    }
    assert LabelSpace.from_dict(description["label_space"]) == LabelSpace.a2d()

    clip = make_clip([(0, 1, 2)], 1)
    torch.save((clip["image"], clip["flow"], clip["neighbours"]), tmp_path / "inputs.pt")
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True)
    detections = torch.load(tmp_path / "outputs.pt")
    assert_same(detections, description["detections"], expected(model, clip))


def test_the_input_size_is_that_of_the_test_time_resize(make_cfg):
    """The size that the tests above take for granted."""
    cfg = make_cfg()
    shape = T.ResizeShortestEdge.get_output_shape(
        *FRAME_SIZE, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    )
    assert shape == INPUT_SIZE


@pytest.mark.parametrize(
    "options, height, message",
    [
        (
            ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
            + ["MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"],
            64,
            "GeneralizedRCNN: only a model of clips is exported",
        ),
        (["MODEL.SEGMENTER.NAME", "GrabCut"], 64, "MODEL.SEGMENTER.NAME GrabCut"),
        ([], 0, "height is 0"),
        ([], 64, "MODEL.WEIGHTS is empty"),
    ],
)
def test_what_cannot_be_exported_is_said(make_cfg, tmp_path, options, height, message):
    with pytest.raises(ValueError, match=message):
        export_model(make_cfg(*options), tmp_path, height=height, width=64)
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_readme(tmp_path, monkeypatch, capsys):
    """Its commands and its code, as they stand, against the stream of the model."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sections = {x.partition("\n")[0]: x for x in text.split("\n## ")}
    deployment = sections["Deployment"]
    (videos,) = re.findall(r"python tools/make_synthetic_a2d\.py .*", sections["Your own videos"])
    export = re.search(r"```\n(python .*?)```", deployment, re.DOTALL)[1].replace("\\\n", " ")
    (code,) = re.findall(r"```python\n(.*?)```", deployment, re.DOTALL)
    for name in ("configs", "results", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for command in (videos, export):
        subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True)
    names = {}
    exec(code, names)
    printed = capsys.readouterr().out

    weights = str(ROOT / "results/demo/R18_FPN.pth")
    cfg = setup_cfg(str(CONFIG), ["MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu"])
    results = list(StreamingPredictor.from_config(cfg).predict(enumerate(names["frames"])))
    fields = results[4].instances.get_fields()
    wanted = {name: getattr(value, "tensor", value) for name, value in fields.items()}
    assert set(names["found"]) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(names["found"][name], value, rtol=1e-4, atol=1e-4, msg=name)
    assert printed.count("\n") == len(wanted["scores"]) > 0
    assert wanted["scores"].max() > 0.5  # the model knows this world


@pytest.mark.parametrize("tool", ["export_model", "predict_video"])
@pytest.mark.parametrize(
    "given, used",
    [
        ("--weights option.pth", "option.pth"),
        ("MODEL.WEIGHTS key.pth", "key.pth"),
        ("--weights option.pth MODEL.WEIGHTS key.pth", "key.pth"),
    ],
)
def test_of_weights_given_twice_both_tools_take_the_key(tmp_path, monkeypatch, tool, given, used):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((64, 64, 3), np.uint8))
    line = f"{tool} --config-file {CONFIG} --output {tmp_path}/out"
    if tool == "predict_video":
        line += f" --input {tmp_path} --no-video"
    monkeypatch.setattr(sys, "argv", f"{line} {given}".split())
    spec = importlib.util.spec_from_file_location(tool, ROOT / f"tools/{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ValueError, match=rf"\b{used}"):
        module.main()
