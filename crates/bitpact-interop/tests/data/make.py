"""Writes the files of this folder with PyTorch (2.15 wrote those that are here): python make.py"""

from collections import OrderedDict

import torch

torch.manual_seed(1)
base = torch.arange(24, dtype=torch.float32)
tensors = OrderedDict(
    whole=base.view(2, 3, 4),
    transposed=base.view(4, 6).t(),
    sliced=base.view(4, 6)[1:3, 2:5],
    scalar=torch.tensor(-1.5),
    empty=torch.zeros(0, 3),
    half=torch.tensor([1.5, -0.25], dtype=torch.float16),
    bfloat=torch.tensor([1.5, -0.25], dtype=torch.bfloat16),
    double=torch.tensor([0.1], dtype=torch.float64),
    long=torch.tensor([-7, 1 << 40]),
    byte=torch.tensor([200], dtype=torch.uint8),
    flags=torch.tensor([True, False]),
    parameter=torch.nn.Parameter(torch.tensor([3.0])),
)
torch.save(tensors, "new.pth")
torch.save(tensors, "old.pth", _use_new_zipfile_serialization=False)

net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
state = torch.nn.DataParallel(net).state_dict()
torch.save({"epoch": 3, "best": 0.5, "name": "net", "none": None, "state_dict": state, "optimizer": {"state": {}}}, "training.pth")
torch.save({"epoch": 3, "best": 0.5, "state_dict": state}, "training.th", _use_new_zipfile_serialization=False)
for protocol in [3, 4, 5]:
    torch.save(state, f"protocol{protocol}.pth", pickle_protocol=protocol)
torch.save(net, "module.pth")
torch.save({"state_dict": state, "args": __import__("argparse").Namespace(lr=0.1)}, "arguments.pth")
