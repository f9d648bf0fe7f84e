import torch

from vtpbench.harness.efficiency.activity import Activity, by_stage
from vtpbench.harness.efficiency.operations import WatchedOperations


def test_operands_and_results_move_once_and_views_not_at_all() -> None:
    layer, x = torch.nn.Linear(64, 32, bias=False), torch.randn(10, 64)
    with torch.inference_mode(), WatchedOperations() as watched:
        layer(x)
        watched.mark("product")
        x.view(5, 2, 64).transpose(0, 1)
        watched.mark("view")
        x[:1].expand(7, 64).clone()
        watched.mark("expanded")
        torch.nn.functional.embedding(torch.tensor([1, 2]), torch.randn(1000, 16))
        watched.mark("lookup")
    moved = {stage: work.moved_bytes for stage, work in watched.by_stage.items()}
    assert moved["product"] == 4 * (64 * 32 + 10 * 64 + 10 * 32)
    assert moved["view"] == 0
    assert moved["expanded"] == 4 * (64 + 7 * 64)
    assert moved["lookup"] >= 2 * 4 * 2 * 16
    assert moved["lookup"] < 4 * 1000 * 16 + 4 * 1000  # the whole table was written, two rows were read
    assert (watched.by_stage["product"].launches, watched.by_stage["view"].launches) == (1, 0)


def test_a_stage_that_is_marked_twice_is_one_stage() -> None:
    x = torch.ones(8)
    with WatchedOperations() as watched:
        for stage in ("vision", "pruner", "vision"):
            x + 1
            watched.mark(stage)
    assert {stage: work.launches for stage, work in watched.by_stage.items()} == {"vision": 2, "pruner": 1}
    assert watched.by_stage["vision"].device_ms > 0


def mark(stage: str, at: float) -> dict:
    return {"cat": "user_annotation", "name": f"end of {stage}", "ts": at, "dur": 1}


def call(name: str, at: float, number: int, cat: str = "cuda_runtime") -> dict:
    return {"cat": cat, "name": name, "ts": at, "dur": 3, "args": {"correlation": number}}


def done(cat: str, at: float, dur: float, number: int) -> dict:
    return {"cat": cat, "name": "work", "ts": at, "dur": dur, "args": {"correlation": number, "stream": 7}}


def test_the_device_works_for_the_stage_that_launched_it_however_late() -> None:
    trace = [
        {"cat": "cpu_op", "name": "aten::mm", "ts": 9, "dur": 8},
        call("cudaLaunchKernel", 10, 1),
        call("cudaMemcpyAsync", 20, 2),
        call("cudaStreamIsCapturing", 21, 90),  # has nothing to do
        mark("vision", 30),
        call("cuLaunchKernelEx", 40, 3, "cuda_driver"),
        call("cudaGraphLaunch", 50, 4),
        mark("prefill", 60),
        call("cudaLaunchKernel", 70, 5),
        mark("vision", 80),
        call("cudaDeviceSynchronize", 90, 6),
        done("kernel", 35, 1000, 1),
        done("gpu_memcpy", 1035, 500, 2),
        done("kernel", 1600, 250, 3),
        done("kernel", 1900, 100, 4),
        done("gpu_memset", 2000, 150, 4),
        done("kernel", 2200, 2000, 5),
    ]
    assert by_stage(trace) == {"vision": Activity(3.5, 3), "prefill": Activity(0.5, 2)}
