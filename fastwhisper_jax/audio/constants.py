"""The rates at which Whisper hears and writes: the same in every published model."""

SAMPLE_RATE_HZ = 16_000

# Log-mel: Hann windows of 25 ms every 10 ms, so 100 frames a second.
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES
SECONDS_PER_FRAME = 1 / FRAMES_PER_SECOND

# The encoder's second convolution halves the rate: 50 positions a second.
FRAMES_PER_POSITION = 2

# Timestamp tokens count in encoder positions.
SECONDS_PER_TIMESTAMP = FRAMES_PER_POSITION / FRAMES_PER_SECOND
