"""Recordings of any length to text with times: openai/whisper's sequential algorithm, in batches."""
