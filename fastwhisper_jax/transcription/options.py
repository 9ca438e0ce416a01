"""The options of a transcription; imports nothing that is slow, so that help is quick."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TranscriptionOptions:
    """What a user can choose.

    Attributes:
        language: code or English name of all recordings' language; None detects each one's.
        task: "transcribe" or "translate".
        word_timestamps: whether words get their own times.
        cut: where windows end, at "timestamps" or at "pauses"; None: what the model was trained
            for.
        previous_text: whether a window's prompt holds the text before it; never at pauses.
        fallback: whether a window whose decoding has failed is decoded again.
        beam: how many hypotheses are searched at temperature 0; 1 decodes greedily.
        batch_size: the most recordings, or speech segments, at a time.
        max_new_tokens: the most tokens a window.
    """

    language: str | None = None
    task: str = "transcribe"
    word_timestamps: bool = False
    cut: str | None = None
    previous_text: bool = True
    fallback: bool = True
    beam: int = 1
    batch_size: int = 8
    max_new_tokens: int = 224
