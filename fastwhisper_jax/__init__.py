"""Distils Whisper speech recognition models with JAX: teacher, student and self teacher."""
