"""The cost of a recipe on a slice, as JSON and as lines to read."""

import dataclasses
import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from fastwhisper_jax.cost.decoding import DecodingCost
from fastwhisper_jax.cost.measure import Measured
from fastwhisper_jax.cost.topology import Slice
from fastwhisper_jax.training.sharding import batch_shards
from fastwhisper_jax.training.task import Phase


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """The cost of one phase of a run.

    Attributes:
        phase: what the update has to run.
        steps: number of the run's updates in this phase. If the recipe counts epochs, only the
            share of all steps is meaningful.
        measured: the compiled step; None if it does not fit.
    """

    phase: Phase
    steps: int
    measured: Measured | None

    @property
    def name(self) -> str:
        """What the update learns from, in words."""
        words = "teacher", "self teacher", "hidden states"
        runs = [word for word, runs in zip(words, self.phase, strict=True) if runs]
        return " and ".join(runs) or "labels alone"

    @property
    def seconds(self) -> float:
        """Roofline seconds of an update; infinite if the step does not fit."""
        return self.measured.roofline.seconds if self.measured else math.inf


@dataclasses.dataclass(frozen=True)
class CostReport:
    """The cost of a recipe on a slice.

    Attributes:
        recipe: its file.
        slice: the slice that it is compiled for.
        mesh: axes and their sizes.
        global_batch_size: rows of the step.
        target_tokens: T of the step.
        window_seconds: the student's window in the step.
        phases: ordered by their first step in the run.
        costliest: the phase whose update takes longest, `PhaseCost.seconds`.
        closed_form_flops: flops per chip in the costliest phase, from the sizes of the models; None
            if the step reads part of them from a cache or compares hidden states.
        largest_batch: estimated rows per chip that fit in the costliest phase; None if no row fits,
            or if only the steps were compiled.
        knows_steps: False if the recipe counts epochs, for the data is not read here.
        teacher: the cost of transcribing with the teacher; None if it does not fit one chip, or if
            only the steps were compiled.
        student: the same for the student.
    """

    recipe: str
    slice: Slice
    mesh: dict[str, int]
    global_batch_size: int
    target_tokens: int
    window_seconds: float
    phases: tuple[PhaseCost, ...]
    costliest: PhaseCost
    closed_form_flops: float | None
    largest_batch: int | None
    knows_steps: bool
    teacher: DecodingCost | None
    student: DecodingCost | None

    @property
    def batch_shards(self) -> int:
        """The number of parts that the rows of the batch are divided into."""
        return batch_shards(self.mesh)

    @property
    def fits(self) -> bool:
        """Whether every phase fits the memory of a chip."""
        limit = self.slice.chip.hbm_gib
        return all(p.measured and p.measured.total_gib <= limit for p in self.phases)

    @property
    def hours(self) -> float | None:
        """Roofline hours of the whole run, if every batch has the longest bucket."""
        if not self.knows_steps or any(phase.measured is None for phase in self.phases):
            return None
        return sum(phase.steps * phase.seconds for phase in self.phases) / 3600

    def as_json(self) -> dict[str, Any]:
        """The report as JSON: the fields of the costliest phase, then those of every phase."""
        slice_ = self.slice
        return {
            "recipe": self.recipe,
            "compiler": versions(),
            "topology": slice_.name,
            "chips": len(slice_.devices),
            "hosts": slice_.hosts,
            "mesh": self.mesh,
            "global_batch_size": self.global_batch_size,
            "target_tokens": self.target_tokens,
            "window_seconds": self.window_seconds,
            "hbm_gib": slice_.chip.hbm_gib,
            "fits": self.fits,
            "largest_batch_per_chip": self.largest_batch,
            **self._measured(self.costliest),
            "closed_form_flops": self.closed_form_flops,
            "hours": self.hours,
            "phases": [self._phase(phase) for phase in self.phases],
            "decoding": self._decoding(),
        }

    def _phase(self, phase: PhaseCost) -> dict[str, Any]:
        return {
            "name": phase.name,
            "share": phase.steps / sum(p.steps for p in self.phases),
            "steps": phase.steps if self.knows_steps else None,
        } | self._measured(phase)

    def _measured(self, phase: PhaseCost) -> dict[str, Any]:
        measured = phase.measured
        if measured is None:
            return {}
        return {
            "argument_gib": measured.argument_gib,
            "temp_gib": measured.temp_gib,
            "flops": measured.cost.flops,
            "kernel_flops": measured.cost.kernel_flops,
            "bytes_accessed": measured.cost.bytes_accessed,
            "hbm_bytes": measured.cost.hbm_bytes,
            "collective_bytes": dict(measured.cost.collective_bytes),
            "roofline_seconds": measured.roofline.seconds,
            "roofline_parts": measured.roofline.parts,
            "bound": measured.roofline.bound,
            "samples_per_second": self.global_batch_size / measured.roofline.seconds,
            "compile_seconds": measured.compile_seconds,
        }

    def _decoding(self) -> dict[str, Any] | None:
        if self.teacher is None or self.student is None:
            return None
        tokens = self.target_tokens
        return {
            "rows": self.global_batch_size // self.batch_shards,
            "teacher": dataclasses.asdict(self.teacher),
            "student": dataclasses.asdict(self.student),
            "token_speed_up": self.teacher.token_seconds / self.student.token_seconds,
            "window_speed_up": self.teacher.window_seconds(tokens)
            / self.student.window_seconds(tokens),
        }

    def closing_lines(self) -> Iterator[str]:
        """The conclusions from all phases, in words."""
        if self.closed_form_flops is not None:
            yield (
                "the costliest update by the models' sizes: "
                f"{self.closed_form_flops / 1e12:.2f} Tflop a chip"
            )
        if self.largest_batch is not None:
            yield f"rows a chip that fit, by the growth of memory: {self.largest_batch}"
        if self.hours is not None:
            updates = sum(phase.steps for phase in self.phases)
            yield (
                f"{updates:,} updates of {self.global_batch_size} rows take at least "
                f"{self.hours:.1f} hours"
            )
        decoding = self._decoding()
        if decoding is not None and self.teacher is not None and self.student is not None:
            yield f"transcribing {decoding['rows']} windows at a time on one chip takes at least:"
            for name, model in (("teacher", self.teacher), ("student", self.student)):
                yield (
                    f"  {name}: {model.encode_seconds * 1e3:.3g} ms to encode them, "
                    f"{model.token_seconds * 1e3:.3g} ms for a token of each"
                )
            yield (
                f"  the student is {decoding['token_speed_up']:.1f} x as fast for a token, "
                f"{decoding['window_speed_up']:.1f} x for windows of {self.target_tokens} tokens"
            )


def versions() -> str:
    """The versions that the costs depend on."""
    return ", ".join(f"{name} {version(name)}" for name in ("jax", "libtpu"))


def heading(slice_: Slice, mesh: dict[str, int], global_batch_size: int, tokens: int) -> str:
    """The slice, the mesh and the batch, in words."""
    chips, rows = len(slice_.devices), global_batch_size / batch_shards(mesh)
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.items())
    return (
        f"{slice_.name}: {chips} chip(s), {slice_.hosts} host(s), mesh {axes}; batch "
        f"{global_batch_size} ({rows:g} a chip), {tokens} tokens"
    )


def phase_lines(
    phase: PhaseCost, slice_: Slice, global_batch_size: int, share: float
) -> Iterator[str]:
    """The cost of one phase on each chip, in words; `share` is its part of the run's updates."""
    measured, chip = phase.measured, slice_.chip
    yield f"update with {phase.name}, {share:.0%} of the run; on each chip:"
    if measured is None:
        yield f"  does not fit {chip.hbm_gib} GiB"
        return
    fits = "fits" if measured.total_gib <= chip.hbm_gib else "does not fit"
    yield (
        f"  memory: {measured.argument_gib:.2f} GiB arguments + {measured.temp_gib:.2f} GiB "
        f"beside: {fits} {chip.hbm_gib} GiB"
    )
    cost = measured.cost
    yield (
        f"  work: {cost.flops / 1e12:.2f} Tflop ({cost.kernel_flops / 1e12:.2f} declared by "
        f"kernels), {cost.bytes_accessed / 1e9:.1f} GB accessed ({cost.hbm_bytes / 1e9:.1f} in HBM)"
    )
    kinds = [f"{kind} {size / 1e6:,.0f} MB" for kind, size in cost.collective_bytes.items()]
    yield f"  received from other chips: {', '.join(kinds) or 'nothing'}"
    parts = [f"{name} {s * 1e3:.1f} ms" for name, s in measured.roofline.parts.items()]
    yield (
        f"  roofline: {', '.join(parts)}; bound by {measured.roofline.bound}: "
        f"at best {global_batch_size / measured.roofline.seconds:.0f} samples a second on the slice"
    )
    yield f"  compiled in {measured.compile_seconds:.0f} s"
