"""What `fastwhisper plan` found: as a report and as lines to read."""

import dataclasses
import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from fastwhisper_jax.cost.decoding import Decoding
from fastwhisper_jax.cost.measure import Measured
from fastwhisper_jax.cost.topology import Slice
from fastwhisper_jax.training.sharding import batch_shards
from fastwhisper_jax.training.task import Phase

NAMES = {
    Phase(True, False): "teacher",
    Phase(True, True): "teacher and self teacher",
    Phase(False, True): "self teacher",
    Phase(False, False): "labels alone",
}


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """One phase of a run.

    Attributes:
        phase: which teachers are run.
        steps: updates of the run in this phase; where the recipe counts epochs, only its share of
            all is meant.
        measured: the compiled step; None where it does not fit.
    """

    phase: Phase
    steps: int
    measured: Measured | None

    @property
    def name(self) -> str:
        """Which teachers are run, in words."""
        return NAMES[self.phase]

    @property
    def seconds(self) -> float:
        """Of an update at the roofline; infinite where it does not fit."""
        return self.measured.roofline.seconds if self.measured else math.inf


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe on a slice.

    Attributes:
        recipe: its file.
        slice: to compile for.
        mesh: axes and their sizes.
        global_batch_size, target_tokens: of the step.
        phases: by their first step in the run.
        costliest: that whose update takes longest, `PhaseCost.seconds`.
        closed_form_flops: of a chip in the costliest phase, from the sizes of the models; None
            where a cache stands in for a part of it.
        largest_batch: estimated rows a chip that fit in the costliest phase; None if not even one
            does, or if the steps alone were compiled.
        knows_steps: False where the recipe counts epochs of data that a plan does not see.
        teacher, student: transcribing; None where a model does not fit one chip, or likewise.
    """

    recipe: str
    slice: Slice
    mesh: dict[str, int]
    global_batch_size: int
    target_tokens: int
    phases: tuple[PhaseCost, ...]
    costliest: PhaseCost
    closed_form_flops: float | None
    largest_batch: int | None
    knows_steps: bool
    teacher: Decoding | None
    student: Decoding | None

    @property
    def batch_shards(self) -> int:
        """Parts that the rows of the batch are divided into."""
        return batch_shards(self.mesh)

    @property
    def fits(self) -> bool:
        """Whether every phase fits a chip's memory."""
        limit = self.slice.chip.hbm_gib
        return all(p.measured and p.measured.total_gib <= limit for p in self.phases)

    @property
    def hours(self) -> float | None:
        """Of the whole run at the roofline, every batch of the longest bucket."""
        if not self.knows_steps or any(phase.measured is None for phase in self.phases):
            return None
        return sum(phase.steps * phase.seconds for phase in self.phases) / 3600

    def report(self) -> dict[str, Any]:
        """As JSON: the fields of the costliest phase, then those of all."""
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
        found = phase.measured
        if found is None:
            return {}
        return {
            "argument_gib": found.argument_gib,
            "temp_gib": found.temp_gib,
            "flops": found.cost.flops,
            "kernel_flops": found.cost.kernel_flops,
            "bytes_accessed": found.cost.bytes_accessed,
            "hbm_bytes": found.cost.hbm_bytes,
            "collective_bytes": dict(found.cost.collective_bytes),
            "roofline_seconds": found.roofline.seconds,
            "roofline_parts": found.roofline.parts,
            "bound": found.roofline.bound,
            "samples_per_second": self.global_batch_size / found.roofline.seconds,
            "compile_seconds": found.compile_seconds,
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
        """What follows from all phases, in words."""
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
    """The versions that a plan depends on."""
    return ", ".join(f"{name} {version(name)}" for name in ("jax", "libtpu"))


def heading(slice_: Slice, mesh: dict[str, int], global_batch_size: int, tokens: int) -> str:
    """What is planned for."""
    chips, rows = len(slice_.devices), global_batch_size / batch_shards(mesh)
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.items())
    return (
        f"{slice_.name}: {chips} chip(s), {slice_.hosts} host(s), mesh {axes}; batch "
        f"{global_batch_size} ({rows:g} a chip), {tokens} tokens"
    )


def phase_lines(
    phase: PhaseCost, slice_: Slice, global_batch_size: int, share: float
) -> Iterator[str]:
    """What one phase, `share` of the run's updates, takes of each chip, in words."""
    found, chip = phase.measured, slice_.chip
    yield f"update with {phase.name}, {share:.0%} of the run; on each chip:"
    if found is None:
        yield f"  does not fit {chip.hbm_gib} GiB"
        return
    fits = "fits" if found.total_gib <= chip.hbm_gib else "does not fit"
    yield (
        f"  memory: {found.argument_gib:.2f} GiB arguments + {found.temp_gib:.2f} GiB beside: "
        f"{fits} {chip.hbm_gib} GiB"
    )
    cost = found.cost
    yield (
        f"  work: {cost.flops / 1e12:.2f} Tflop ({cost.kernel_flops / 1e12:.2f} declared by "
        f"kernels), {cost.bytes_accessed / 1e9:.1f} GB accessed ({cost.hbm_bytes / 1e9:.1f} in HBM)"
    )
    kinds = [f"{kind} {size / 1e6:,.0f} MB" for kind, size in cost.collective_bytes.items()]
    yield f"  received from other chips: {', '.join(kinds) or 'nothing'}"
    parts = [f"{name} {s * 1e3:.1f} ms" for name, s in found.roofline.parts.items()]
    yield (
        f"  roofline: {', '.join(parts)}; bound by {found.roofline.bound}: "
        f"at best {global_batch_size / found.roofline.seconds:.0f} samples a second on the slice"
    )
    yield f"  compiled in {found.compile_seconds:.0f} s"
