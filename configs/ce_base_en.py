"""The control: cross-entropy with the labels alone. The teacher is not run.

    fastwhisper train configs/ce_base_en.py --run-dir runs/ce \\
        --teacher.path openai/whisper-base --data.train train.jsonl --data.eval test.jsonl

The student is whisper-base's whole encoder, frozen, and its decoder layers 0 and 5. The token
embedding stays frozen too, because an hour of speech holds few of its 51,865 tokens. The recipe is
sized for two CPU cores and about twenty minutes of speech. `askd_base_en`, `distil_whisper_base_en`
and `ce_base_en` differ only in their objective.

Hardware: 2 CPU cores. Hours: 0.28 beside other jobs (and 0.08 once to fill the encoder cache).
Result: 26.8 % WER on 466 words of held-out prompts of the same speaker (teacher 7.3 %), trained on
18 minutes. docs/results.md has its interval and controls.
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
        decoder_layers=2,
        frozen=("encoder", "decoder/embed_tokens"),
        dropout=0.1,
    ),
    data=DataConfig(
        language="en",
        target_buckets=(16, 32, 64, 128),
        cache="runs/cache",
    ),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig(init_value=0.0),
        ce_weight=1.0,
    ),
    optimizer=OptimizerConfig(learning_rate=3e-4, warmup=0.05, weight_decay=0.01),
    training=TrainingConfig(global_batch_size=8, epochs=30, eval_every=275, save_every=275),
)
