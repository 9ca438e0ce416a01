import numpy as np
from support import tiny_decoding as tiny

from fastwhisper_jax.decoding.language import detect_language


def test_the_language_is_the_likeliest_of_the_language_tokens():
    params, encoder_states, languages = tiny.make_params(), tiny.make_encoder_states(), (7, 50, 2)
    detected = detect_language(tiny.tiny_model(params), encoder_states, tiny.START, languages)
    tokens = np.full((3, 1), tiny.START, np.int32)
    logits = np.asarray(tiny.logits_of(params, tokens, encoder_states))[:, 0]
    assert detected.tolist() == logits[:, list(languages)].argmax(1).tolist()
