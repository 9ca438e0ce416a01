"""The sizes of published Whisper models, so that `fastwhisper plan` downloads nothing.

Source: config.json of each on the Hugging Face hub.
"""

from fastwhisper_jax.models.whisper.dimensions import ModelDimensions


def _whisper(
    width: int, layers: tuple[int, int], n_vocab: int = 51865, n_mels: int = 80
) -> ModelDimensions:
    heads = width // 64
    return ModelDimensions(
        n_mels=n_mels,
        n_audio_ctx=1500,
        n_audio_head=heads,
        n_audio_layer=layers[0],
        n_audio_mlp=4 * width,
        n_vocab=n_vocab,
        n_text_ctx=448,
        n_text_head=heads,
        n_text_layer=layers[1],
        n_text_mlp=4 * width,
        n_state=width,
    )


_ENGLISH, _V3 = 51864, 51866

PUBLISHED = {
    "openai/whisper-tiny": _whisper(384, (4, 4)),
    "openai/whisper-tiny.en": _whisper(384, (4, 4), _ENGLISH),
    "openai/whisper-base": _whisper(512, (6, 6)),
    "openai/whisper-base.en": _whisper(512, (6, 6), _ENGLISH),
    "openai/whisper-small": _whisper(768, (12, 12)),
    "openai/whisper-small.en": _whisper(768, (12, 12), _ENGLISH),
    "openai/whisper-medium": _whisper(1024, (24, 24)),
    "openai/whisper-medium.en": _whisper(1024, (24, 24), _ENGLISH),
    "openai/whisper-large": _whisper(1280, (32, 32)),
    "openai/whisper-large-v2": _whisper(1280, (32, 32)),
    "openai/whisper-large-v3": _whisper(1280, (32, 32), _V3, 128),
    "openai/whisper-large-v3-turbo": _whisper(1280, (32, 4), _V3, 128),
    "distil-whisper/distil-small.en": _whisper(768, (12, 4), _ENGLISH),
    "distil-whisper/distil-medium.en": _whisper(1024, (24, 2), _ENGLISH),
    "distil-whisper/distil-large-v2": _whisper(1280, (32, 2)),
    "distil-whisper/distil-large-v3": _whisper(1280, (32, 2), _V3, 128),
    "distil-whisper/distil-large-v3.5": _whisper(1280, (32, 2), _V3, 128),
}
