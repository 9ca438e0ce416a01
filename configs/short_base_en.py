"""Short windows: a student of all layers that hears an utterance in the shortest window it fits.

    fastwhisper train configs/short_base_en.py --run-dir runs/short \\
        --teacher.path openai/whisper-base --data.train train.jsonl --data.eval dev.jsonl
    fastwhisper export runs/short --out short-student

Whisper hears 30 s, and most of that is silence where people say a sentence at a time. The same
weights in a short window repeat themselves without end. 120 updates of the decoder, in windows of
1.5 to 30 s, mend that. The encoder and the token embedding stay frozen, so the encoder's outputs
are computed once.

Hardware: 2 CPU cores. Hours: 0.05 beside other jobs (and about 0.05 once to fill the cache).
Result: 6.0 % WER on 466 words of held-out prompts of the same speaker (teacher 7.3 %), trained on
16.5 minutes; an utterance alone takes 0.17 of the teacher's time, one of at most 2 s 0.09.
docs/short-windows.md has the controls and what was not measured.
"""

from fastwhisper_jax.config import (
    Config,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)

config = Config(
    teacher=TeacherConfig(path="openai/whisper-base"),
    student=StudentConfig(
        decoder_layers=None,
        windows_seconds=(1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 30.0),
        margin_seconds=0.3,
        frozen=("encoder", "decoder/embed_tokens"),
    ),
    data=DataConfig(
        language="en",
        target_buckets=(16, 32, 64, 128),
        longer_window_probability=0.3,
        cache="runs/cache",
    ),
    objective=ObjectiveConfig(teacher_weight=ScheduleConfig(init_value=0.0), ce_weight=1.0),
    optimizer=OptimizerConfig(learning_rate=2e-5, warmup=0.1, weight_decay=0.0),
    training=TrainingConfig(global_batch_size=8, steps=120, save_every=0),
)
