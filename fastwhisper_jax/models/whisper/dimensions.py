"""The sizes of a Whisper model."""

import dataclasses

from fastwhisper_jax.audio.constants import FRAMES_PER_POSITION, FRAMES_PER_SECOND, SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True)
class ModelDimensions:
    """Sizes of a Whisper model. They are hashable, so that `jax.jit` can take them as static.

    The names are those of openai/whisper's `ModelDimensions`. Encoder and decoder have one width.

    Attributes:
        n_mels: M, mel bins of the input (80, or 128 since large-v3).
        n_audio_ctx: S, encoder positions, 50 a second (1500 for 30 s).
        n_audio_head: N of the encoder.
        n_audio_layer: encoder layers.
        n_audio_mlp: F of the encoder.
        n_vocab: V (51864 English only, 51865 multilingual, 51866 since large-v3).
        n_text_ctx: decoder positions (448).
        n_text_head: N of the decoder.
        n_text_layer: decoder layers.
        n_text_mlp: F of the decoder.
        n_state: D, the width of both stacks.
    """

    n_mels: int
    n_audio_ctx: int
    n_audio_head: int
    n_audio_layer: int
    n_audio_mlp: int
    n_vocab: int
    n_text_ctx: int
    n_text_head: int
    n_text_layer: int
    n_text_mlp: int
    n_state: int

    @property
    def n_frames(self) -> int:
        """L, mel frames of a full window."""
        return self.n_audio_ctx * FRAMES_PER_POSITION

    @property
    def context_seconds(self) -> float:
        """Length of a full window in seconds."""
        return self.n_frames / FRAMES_PER_SECOND

    @property
    def n_samples(self) -> int:
        """A, audio samples of a full window at 16 kHz."""
        return self.n_frames * SAMPLE_RATE_HZ // FRAMES_PER_SECOND
