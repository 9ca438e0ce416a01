"""Recordings of any length to text with times, by openai/whisper's sequential algorithm."""
