"""From files of speech to samples, log-mel features and pauses; Whisper's audio constants."""
