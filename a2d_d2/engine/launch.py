"""Starting a main function in one process or many: Detectron2's launch, or torchrun's processes."""

import argparse
import os
from collections.abc import Callable

import torch
from detectron2.engine import launch
from detectron2.utils import comm


def launch_main(main: Callable, args: argparse.Namespace) -> None:
    """Runs ``main(args)`` in every process of the job.

    Under torchrun (or any scheduler that sets its variables) this process joins the group it
    describes. Otherwise Detectron2's launch starts ``--num-gpus`` processes on this machine, on the
    CPU (gloo) where there is no GPU.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    try:
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        main(args)
    finally:
        torch.distributed.destroy_process_group()
