"""Measure the server's side of a round alone: replies are unpacked and go into the running mean.

No training and no network: one packed reply is read again and again, as fast as the server can.
Usage: ``python -m benchmarks.aggregation_path`` (both models of docs/scaling.md), or with
``--parameters 35700000 --arrays 390 --replies 30`` for one.
"""

import argparse
import subprocess
import sys
import time

from benchmarks.peak_memory import peak_mb

MODELS = ((1_000_000, 144, 300), (35_700_000, 390, 20))


def main() -> None:
    """Measure one model, or each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parameters", type=int)
    parser.add_argument("--arrays", type=int, default=144)
    parser.add_argument("--replies", type=int, default=100)
    asked = parser.parse_args()
    if asked.parameters:
        measure(asked.parameters, asked.arrays, asked.replies)
        return
    for parameters, arrays, replies in MODELS:
        options = [f"--parameters={parameters}", f"--arrays={arrays}", f"--replies={replies}"]
        subprocess.run([sys.executable, "-m", "benchmarks.aggregation_path", *options], check=True)


def measure(parameters: int, arrays: int, replies: int) -> None:
    """Print seconds and memory per reply of a model with that many parameters."""
    import torch

    from phoenix_pipeline.federated.aggregation import WeightedMean
    from phoenix_pipeline.federated.records import pack_weights, unpack_weights
    from phoenix_pipeline.federated.wire import Layout

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    length = parameters // arrays
    model = {f"w{i}": torch.randn(length, generator=generator) for i in range(arrays)}
    packed, layout = pack_weights(model), Layout.of(model)
    mean = WeightedMean(model)
    mean.add(unpack_weights(packed, layout), 1.0)
    before = peak_mb()
    wall, used = time.perf_counter(), time.process_time()
    for _ in range(replies):
        mean.add(unpack_weights(packed, layout), 10.0)
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print(
        f"{parameters / 1e6:g} M parameters in {arrays} arrays, {replies} replies: "
        f"{1000 * used / replies:.1f} ms of CPU per reply ({1000 * wall / replies:.1f} ms of wall "
        f"clock), peak {peak_mb():.0f} MB, {peak_mb() - before:.0f} MB of it since the first reply"
    )


if __name__ == "__main__":
    main()
