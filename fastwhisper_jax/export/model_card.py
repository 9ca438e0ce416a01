"""README.md of an export: what the student is, how well it does, how to use it."""

import dataclasses
import json

from fastwhisper_jax.export.usage import FULL_CONTEXT_SECONDS, usage_section
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.hf_names import parameter_count

_UNKNOWN = "unknown (its folder does not name it; look it up before you pass these on)"


@dataclasses.dataclass(frozen=True)
class Score:
    """Word error rates of teacher and student on one data set.

    Attributes:
        data: name of the data.
        normalizer: what both sides went through before scoring.
        student_wer, teacher_wer: fractions; None where it was not measured.
    """

    data: str
    normalizer: str
    student_wer: float | None = None
    teacher_wer: float | None = None


@dataclasses.dataclass(frozen=True)
class OtherTeacher:
    """A teacher that the student was not cut from.

    Attributes:
        name: its hub id, or the name of its folder.
        dims: its sizes.
        license: of its weights. None: unknown.
    """

    name: str
    dims: ModelDimensions
    license: str | None = None


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What an export cannot read from the weights.

    Attributes:
        base_model: what the student was cut from: its hub id, or the name of its folder (no path:
            the card is public). It is the teacher too, unless `other_teacher` is given.
        encoder_layers, decoder_layers: the base model's layers that the student started from.
        languages: codes that it was trained on ("en").
        license: of the base model's weights as the hub spells it ("mit"), which the student's are
            derived from. None: unknown.
        training: sentences about how it was trained (objective, data, updates), or nothing.
        scores: word error rates to tabulate.
        trained_with_timestamps: whether its labels said when words are spoken.
        other_teacher: what it was distilled from, where that is not the base model.
    """

    base_model: str
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    languages: tuple[str, ...] = ()
    license: str | None = None
    training: str = ""
    scores: tuple[Score, ...] = ()
    trained_with_timestamps: bool = False
    other_teacher: OtherTeacher | None = None


def model_card(
    name: str,
    facts: CardFacts,
    student: ModelDimensions,
    base: ModelDimensions,
    dtype: str = "float32",
    heads_note: str = "",
) -> str:
    """Compose the model card in Markdown, with the YAML header that the Hugging Face hub reads.

    Args:
        name: of the model: its export folder's.
        facts: see `CardFacts`.
        student, base: sizes of the student, and of what it was cut from.
        dtype: of the weights.
        heads_note: what is to be said about word timestamps, or nothing.
    """
    sections = [
        _front_matter(facts),
        f"# {name}",
        _description(facts, student, base, dtype),
        facts.training,
        _license(facts),
        _results(facts, student, facts.other_teacher.dims if facts.other_teacher else base),
        _context_warning(student),
        _timestamps(facts.trained_with_timestamps),
        _word_timestamps(heads_note),
        usage_section(name, student, facts.languages[0] if facts.languages else "en", dtype),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: CardFacts) -> str:
    # every value is quoted as JSON, which is YAML: a bare `no` (Norwegian) would read as false
    def items(key: str, values: tuple[str, ...]) -> list[str]:
        return [f"{key}:", *(f"- {json.dumps(value)}" for value in values)] if values else []

    lines = [
        "---",
        *items("language", facts.languages),
        f"license: {json.dumps(_license_of_all(facts))}",
        f"base_model: {json.dumps(facts.base_model)}",
        "library_name: transformers",
        "pipeline_tag: automatic-speech-recognition",
        *items("tags", ("whisper", "distillation", "audio", "jax", "safetensors")),
        "---",
    ]
    return "\n".join(lines)


def _description(
    facts: CardFacts, student: ModelDimensions, base: ModelDimensions, dtype: str
) -> str:
    other = facts.other_teacher
    whose = "that model's" if other else "the teacher's"
    encoder = _kept("encoder", facts.encoder_layers, base.n_audio_layer, whose)
    decoder = _kept("decoder", facts.decoder_layers, base.n_text_layer, whose)
    made = f"distilled from `{facts.base_model}` with fastwhisper_jax: {encoder} and {decoder}"
    if other:
        made = (
            f"cut from `{facts.base_model}`, {encoder} and {decoder}, and distilled from"
            f" `{other.name}` with fastwhisper_jax"
        )
    return (
        f"A small Whisper {made}. It hears windows of {student.context_seconds:g} seconds. Its"
        f" weights are {dtype}."
    )


def _license_of_all(facts: CardFacts) -> str:
    """What the header names: unknown where one is, other (in the hub's terms) where they differ."""
    own = facts.license or "unknown"
    others = (facts.other_teacher.license or "unknown") if facts.other_teacher else own
    return own if others == own else "unknown" if "unknown" in (own, others) else "other"


def _license(facts: CardFacts) -> str:
    other = facts.other_teacher
    if other:
        return (
            f"Licence of the weights of `{facts.base_model}`, which these are derived from:"
            f" {facts.license or _UNKNOWN}. Licence of those of the teacher, `{other.name}`:"
            f" {other.license or _UNKNOWN}."
        )
    if facts.license:
        return f"Licence of the teacher's weights, which these are derived from: {facts.license}."
    return (
        "Licence: unknown. The teacher's folder does not name the licence of its weights, which"
        " these are derived from; look it up before you pass them on."
    )


def _kept(stack: str, layers: tuple[int, ...], base_layers: int, whose: str) -> str:
    if len(layers) == base_layers:
        return f"all {base_layers} {stack} layers"
    which = " and ".join(filter(None, [", ".join(map(str, layers[:-1])), str(layers[-1])]))
    layer = "layers" if len(layers) > 1 else "layer"
    return (
        f"{len(layers)} of {base_layers} {stack} layers ({whose} {layer} {which}, counted from 0)"
    )


def _results(facts: CardFacts, student: ModelDimensions, teacher: ModelDimensions) -> str:
    rows = [
        ("", "teacher", "this model"),
        ("---", "---:", "---:"),
        ("parameters (millions)", _millions(teacher), _millions(student)),
        *(
            (
                f"WER %, {score.data} ({score.normalizer} normaliser)",
                _percent(score.teacher_wer),
                _percent(score.student_wer),
            )
            for score in facts.scores
        ),
    ]
    return "## Results\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _millions(dims: ModelDimensions) -> str:
    return f"{parameter_count(dims) / 1e6:.1f}"


def _percent(fraction: float | None) -> str:
    return "not measured" if fraction is None else f"{100 * fraction:.2f}"


def _context_warning(student: ModelDimensions) -> str:
    if student.context_seconds >= FULL_CONTEXT_SECONDS:
        return ""
    return (
        f"## Short context\n\nThis model hears {student.context_seconds:g} seconds at a time, not"
        f" 30. transformers reads that from `preprocessor_config.json`; faster-whisper and"
        " whisper.cpp insist on windows of 30 seconds and cannot run it."
    )


def _timestamps(trained: bool) -> str:
    if trained:
        return ""
    return (
        "## Long recordings\n\nThe training labels held no timestamps, so do not ask this model for"
        " any: programs that cut long recordings at its timestamps lose text. Cut them at pauses"
        " instead, as `fastwhisper transcribe` does, and transcribe without timestamps as below."
    )


def _word_timestamps(heads_note: str) -> str:
    return f"## Word timestamps\n\n{heads_note[0].upper()}{heads_note[1:]}." if heads_note else ""
