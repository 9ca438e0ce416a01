"""Writes the README.md of an export: what the student is, how accurate it is, how to use it."""

import dataclasses

from huggingface_hub import ModelCardData

from fastwhisper_jax.audio.constants import FULL_CONTEXT_SECONDS
from fastwhisper_jax.audio.windows import Windows, listed
from fastwhisper_jax.export.hf_configs import WINDOWS
from fastwhisper_jax.export.usage import usage_section
from fastwhisper_jax.models.whisper.dimensions import ModelDimensions
from fastwhisper_jax.models.whisper.hf_names import parameter_count

_UNKNOWN = "unknown (its folder does not name it; look it up before you share these weights)"
_NO_TIMESTAMPS = """## Long recordings

The training labels held no timestamps, so do not ask this model for timestamps: programs that cut \
long recordings at its timestamps lose text. Cut long recordings at pauses, as `fastwhisper \
transcribe` does, and transcribe them without timestamps, as below."""


@dataclasses.dataclass(frozen=True)
class CardScore:
    """Word error rates of teacher and student on one data set.

    Attributes:
        data: name of the data.
        normalizer: the normaliser of references and hypotheses.
        student_wer, teacher_wer: as fractions; None if not measured.
    """

    data: str
    normalizer: str
    student_wer: float | None = None
    teacher_wer: float | None = None


@dataclasses.dataclass(frozen=True)
class OtherTeacher:
    """A teacher that is not the base model.

    Attributes:
        name: its hub id, or the name of its folder.
        dims: its sizes.
        license: licence of its weights; None if unknown.
    """

    name: str
    dims: ModelDimensions
    license: str | None = None


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """Facts about a student that its weights do not show.

    Attributes:
        base_model: the model whose layers the student was initialised from: its hub id, or the
            name of its folder (not the path, because the card is public). It is also the teacher,
            unless `other_teacher` is given.
        encoder_layers, decoder_layers: the base model's layers that the student kept.
        windows: the lengths of audio that the student hears.
        languages: codes of the languages that the student was trained on ("en").
        license: licence of the base model's weights, as the hub spells it ("mit"); None if
            unknown. The student's weights are derived from them.
        training: sentences about the training (objective, data, updates); may be empty.
        scores: word error rates for the table.
        trained_with_timestamps: whether the training labels held timestamps.
        other_teacher: the teacher, if it is not the base model.
    """

    base_model: str
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    windows: Windows
    languages: tuple[str, ...] = ()
    license: str | None = None
    training: str = ""
    scores: tuple[CardScore, ...] = ()
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
    """Writes the model card in Markdown, with the YAML header that the Hugging Face hub reads.

    Args:
        name: name of the model, which is the name of its folder.
        facts: see `CardFacts`.
        student, base: sizes of the student and of the base model.
        dtype: dtype of the weights.
        heads_note: a note about word timestamps; may be empty.
    """
    header = ModelCardData(
        language=list(facts.languages) or None,
        license=_license_of_all(facts),
        base_model=facts.base_model,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        tags=["whisper", "distillation", "audio", "jax", "safetensors"],
    )
    sections = [
        f"---\n{header.to_yaml()}\n---",
        f"# {name}",
        _description(facts, student, base, dtype),
        facts.training,
        _license(facts),
        _results(facts, student, facts.other_teacher.dims if facts.other_teacher else base),
        _window_section(facts.windows),
        "" if facts.trained_with_timestamps else _NO_TIMESTAMPS,
        heads_note and f"## Word timestamps\n\n{heads_note[0].upper()}{heads_note[1:]}.",
        usage_section(name, student, facts.languages[0] if facts.languages else "en", dtype),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _description(
    facts: CardFacts, student: ModelDimensions, base: ModelDimensions, dtype: str
) -> str:
    other = facts.other_teacher
    whose = "that model's" if other else "the teacher's"
    encoder = _kept("encoder", facts.encoder_layers, base.n_audio_layer, whose)
    decoder = _kept("decoder", facts.decoder_layers, base.n_text_layer, whose)
    made = (
        f"distilled from `{facts.base_model}` with fastwhisper_jax. It has {encoder} and {decoder}"
    )
    if other:
        made = (
            f"initialised from `{facts.base_model}`, with {encoder} and {decoder}, and distilled"
            f" from `{other.name}` with fastwhisper_jax"
        )
    return (
        f"A small Whisper {made}. It hears windows of {listed(facts.windows.seconds)} seconds. Its"
        f" weights are {dtype}."
    )


def _license_of_all(facts: CardFacts) -> str:
    """The licence in the header: "unknown" if one is, "other" (the hub's term) if two differ."""
    own = facts.license or "unknown"
    others = (facts.other_teacher.license or "unknown") if facts.other_teacher else own
    return own if others == own else "unknown" if "unknown" in (own, others) else "other"


def _license(facts: CardFacts) -> str:
    sentences = [
        f"These weights are derived from those of `{facts.base_model}`, whose licence is"
        f" {facts.license or _UNKNOWN}."
    ]
    if other := facts.other_teacher:
        sentences.append(
            f"The licence of the teacher, `{other.name}`, is {other.license or _UNKNOWN}."
        )
    return " ".join(sentences)


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


def _window_section(windows: Windows) -> str:
    if windows.seconds == (FULL_CONTEXT_SECONDS,):
        return ""
    if windows.longest < FULL_CONTEXT_SECONDS:
        return (
            f"## Short windows\n\nThis model hears at most {windows.longest:g} seconds at a time,"
            " not 30. transformers reads the length from `preprocessor_config.json`."
            " faster-whisper and whisper.cpp need windows of 30 seconds and cannot run this model."
        )
    return (
        "## Short windows\n\nShort speech needs little work: fastwhisper_jax hears an utterance in"
        f" the shortest of {listed(windows.seconds)} seconds that holds it with"
        f" {windows.margin_seconds:g} s of silence. `{WINDOWS}` in `config.json` names them."
        " transformers, FlaxWhisper and faster-whisper hear 30 seconds, as of every Whisper."
        " whisper.cpp takes a shorter window with `-ac`, 50 for each second."
    )
