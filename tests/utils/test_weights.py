"""Checkpoints are data: the same arrays as pickle and torch give, and no call of anything else."""

import codecs
import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from a2d_d2.modeling.start_weights import load_weights
from a2d_d2.utils.weights import CompressedError, SafeCheckpointer, load_pickle, load_torch

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)),
    "half": np.float16([1.5, -2]),
    "empty": np.zeros((0, 3)),
    "scalar": np.array(7, dtype=np.uint8),
    "flags": np.array([True, False]),
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape and (found[name] == array).all()
        assert found[name].dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path, protocol):
    path = tmp_path / "zoo.pkl"
    value = {"model": ARRAYS, "__author__": "x", "number": np.float32(2.5), "list": [1, (2, "a")]}
    path.write_bytes(pickle.dumps(value, protocol))
    found = load_pickle(path)
    assert_same(found.pop("model"), ARRAYS)
    assert found == {"__author__": "x", "number": 2.5, "list": [1, (2, "a")]}


def test_a_file_of_python_2(tmp_path):
    """As the zoo's Caffe2 models: protocol 2, bytes as str, by hand."""
    path = tmp_path / "R-50.pkl"
    path.write_bytes(
        b"\x80\x02}q\x00U\x05blobs}U\x06conv_wcnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@"
        b"tbss."
    )
    assert load_pickle(path)["blobs"]["conv_w"].tolist() == [1, 2]


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nndarray\n((I1000000000000\ntI0\ntR.",
        b"\x80\x05\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # a length of 1 TiB
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
        b"}r\xff\xff\xff\x7f.q",  # a memo of 2**31 entries, in C's unpickler
        b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",  # hashing this key overflows the stack
        b"cnumpy\ndtype\n(S'O'\nI0\nI1\ntR.",
        b"(lp0\nI1\na.",
        b"",
        b".",
    ],
)
def test_pickles_that_are_refused(tmp_path, data):
    path = tmp_path / "zoo.pkl"
    path.write_bytes(data)
    if data.startswith(b"}r"):
        assert load_pickle(path) == {}
        return
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        load_pickle(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_many_arrays_of_the_same_bytes_are_refused(tmp_path, protocol):
    """A file of a megabyte that would take a gigabyte."""
    path, array = tmp_path / "zoo.pkl", np.zeros(1 << 20, dtype=np.uint8)
    if protocol == 4:
        function, (_, *rest) = array.__reduce_ex__(5)
        call = function, array.tobytes(), *rest
    else:
        call = codecs.encode, "\0" * array.size, "latin1"
    path.write_bytes(pickle.dumps({str(i): _Call(*call) for i in range(1000)}, protocol))
    assert path.stat().st_size < 1.1 * array.size
    tracemalloc.start()
    with pytest.raises(ValueError, match="made of more than the file holds"):
        load_pickle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * array.size


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_many_small_arrays_are_not_refused(tmp_path, protocol):
    path = tmp_path / "zoo.pkl"
    arrays = {str(i): np.full((1,) * (i % 5), i % 2, dtype="?") for i in range(5000)}
    path.write_bytes(pickle.dumps(OrderedDict(arrays), protocol))
    assert_same(load_pickle(path), arrays)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth"])
def test_no_checkpoint_runs_anything(tmp_path, suffix):
    flag, path = tmp_path / "ran", tmp_path / f"evil{suffix}"
    weights = {"model": {"weight": _Call(os.mkdir, str(flag))}, "__author__": "x"}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(weights))
    else:
        torch.save(weights, path)
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS.*evil.*not a checkpoint of tensors"):
        load_weights(nn.Linear(1, 1), "MODEL.WEIGHTS", str(path))
    assert not flag.exists()
    pickle.loads(pickle.dumps(_Call(os.mkdir, str(flag))))
    assert flag.exists()  # it would have


def test_torch_files_load_as_before(tmp_path):
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    SafeCheckpointer(model, str(tmp_path)).save("x", iteration=5)
    assert SafeCheckpointer(other).load(str(tmp_path / "x.pth")) == {"iteration": 5}
    assert torch.equal(model.weight, other.weight)
    torch.save({"model_state": model.state_dict()}, tmp_path / "y.pyth")
    third = nn.Linear(2, 3)
    SafeCheckpointer(third).load(str(tmp_path / "y.pyth"))
    assert torch.equal(model.weight, third.weight)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compressed_torch_files_are_refused(tmp_path, compression):
    stored, path = tmp_path / "stored.pth", tmp_path / "small.pth"
    torch.save({"model": {"weight": torch.zeros(1 << 20)}}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 20_000
    words = f"{path} has compressed parts.*; write a file that you trust again with torch.save"
    with pytest.raises(CompressedError, match=words):
        load_torch(path)
    with pytest.raises(ValueError, match=rf"MODEL\.WEIGHTS.*{words}"):
        load_weights(nn.Linear(1, 1), "MODEL.WEIGHTS", str(path))


def test_torch_files_whose_parts_share_bytes_are_refused(tmp_path):
    path = tmp_path / "shared.pth"
    torch.save({"a": torch.zeros(1000), "b": torch.ones(1000)}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
        archive.filelist += [largest] * 9
        archive._didModify = True
    assert path.stat().st_size < len(data) + 2000
    with pytest.raises(CompressedError):
        load_torch(path)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_of_more_values_than_are_stored_are_refused(device, legacy, tmp_path):
    path = tmp_path / "expanded.pth"
    once = torch.zeros(1)
    fields = Instances((4, 4), gt_boxes=Boxes(once.expand(2, 4)))
    torch.serialization.add_safe_globals([Instances, Boxes])
    around = [1, {"b": (2,)}]
    around.append(around)  # holds itself
    for bomb in (once.expand(9000, 9000), [{"a": (nn.Parameter(once.expand(2)),)}], fields):
        content = {"around": around, "bomb": bomb}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        words = f"{path} has tensors of more values than are stored.*; write a file that you trust"
        with pytest.raises(CompressedError, match=words):
            load_torch(path, device)
    views = [once.expand(1, 1), torch.arange(10.0)[2:5], torch.zeros(3, 4).t(), torch.zeros(0, 9)]
    torch.save(views, path, _use_new_zipfile_serialization=not legacy)
    assert [x.shape for x in load_torch(path, device)] == [(1, 1), (3,), (4, 3), (0, 9)]


def test_sparse_tensors_are_refused(tmp_path):
    place = torch.zeros(2, 1, dtype=torch.int64)
    sparse = torch.sparse_coo_tensor(place, torch.ones(1), (10**6, 10**6), check_invariants=True)
    torch.save({"model": sparse}, tmp_path / "sparse.pth")
    with pytest.raises(CompressedError, match="sparse"):
        load_torch(tmp_path / "sparse.pth")


def test_torch_files_of_the_older_format_load(tmp_path):
    weights = {"weight": torch.arange(3.0)}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_torch(tmp_path / "old.pth")["weight"].equal(weights["weight"])
    (tmp_path / "cut.pth").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(pickle.UnpicklingError, match="cut off"):
        load_torch(tmp_path / "cut.pth")
