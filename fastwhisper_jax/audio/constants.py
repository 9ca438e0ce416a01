"""Whisper's rates for audio, features and timestamps. Every published model uses the same."""

SAMPLE_RATE_HZ = 16_000

# OpenAI's models hear 30 s at a time. A student may hear less.
FULL_CONTEXT_SECONDS = 30.0

# Log-mel features: one Hann window of 25 ms every 10 ms, so 100 frames a second.
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES
SECONDS_PER_FRAME = 1 / FRAMES_PER_SECOND

# The encoder's second convolution halves the rate to 50 positions a second.
FRAMES_PER_POSITION = 2

# A timestamp token counts in encoder positions.
SECONDS_PER_TIMESTAMP = FRAMES_PER_POSITION / FRAMES_PER_SECOND
