"""`vla-train`: demonstrations in, a policy out."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from tasks.demonstrations import UnnamedTaskWarning
from vla_vggt.configs.train_config import TrainArguments
from vla_vggt.training.plan import Progress
from vla_vggt.training.processes import Processes, join_processes
from vla_vggt.training.setup import prepare_training
from vla_vggt.training.trainer import BEST_FILE, CHECKPOINTS

EXIT_OK, EXIT_STOPPED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """The console command."""
    arguments = tyro.cli(TrainArguments, prog="vla-train")
    sys.exit(run(arguments, out=Console(), errors=Console(stderr=True)))


def run(arguments: TrainArguments, *, out: Console, errors: Console) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 1 where training had to stop; 2 for wrong input, before anything ran; 130 for Ctrl-C.
    """
    try:
        processes = join_processes(arguments.device)
    except ValueError as error:
        errors.print(f"vla-train: {error}", markup=False, highlight=False, soft_wrap=True)
        return EXIT_USAGE
    if not processes.is_main:
        out = Console(quiet=True)
    status = _train(arguments, processes, out=out, errors=errors)
    if status != EXIT_OK and processes.count > 1:
        # the others may wait for this one, and parting from them could wait for them: torchrun ends them when this process ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _train(arguments: TrainArguments, processes: Processes, *, out: Console, errors: Console) -> int:
    who = "vla-train" if processes.is_main else f"vla-train, process {processes.rank}"

    def say(text: str) -> None:
        out.print(text, markup=False, highlight=False, soft_wrap=True)

    def complain(text: str) -> None:
        errors.print(f"{who}: {text}", markup=False, highlight=False, soft_wrap=True)

    torch.set_float32_matmul_precision("high")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with ProgressBar(*columns, console=out) as bar:
        line = bar.add_task("", total=None, visible=False)

        def show(progress: Progress) -> None:
            bar.update(
                line,
                completed=progress.step,
                total=progress.total_steps,
                visible=True,
                description=f"loss {progress.loss:.4f}  {progress.samples_per_s:.0f} samples/s",
            )

        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UnnamedTaskWarning)
                trainer = prepare_training(arguments, say=say, on_progress=show, processes=processes)
        except (ValueError, OSError, MemoryError) as error:
            complain(str(error))
            return EXIT_USAGE
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        for warning in caught:
            if issubclass(warning.category, UnnamedTaskWarning) and processes.is_main:
                complain(f"warning: {warning.message}")
        try:
            trainer.run()
        except (ValueError, OSError) as error:
            complain(str(error))
            return EXIT_STOPPED
        except torch.OutOfMemoryError as error:
            complain(
                f"the GPU's memory is full: lower --batch-size and raise --accumulate. {str(error).splitlines()[0]}"
            )
            return EXIT_STOPPED
        except KeyboardInterrupt:
            complain("interrupted; the same command goes on from the last checkpoint")
            return EXIT_INTERRUPTED
    _conclude(arguments.log_dir, out)
    return EXIT_OK


def _conclude(folder: Path, out: Console) -> None:
    lines = (
        f"Checkpoints: {folder / CHECKPOINTS}, the best also as {folder / BEST_FILE}",
        f"Evaluate: vla-eval --checkpoint {folder}",
        f"Curves: tensorboard --logdir {folder}",
    )
    out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
