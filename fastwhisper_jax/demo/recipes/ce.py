"""The control: trains with the labels only. The teacher is not run.

    fastwhisper train recipes/ce.py --run-dir runs/ce-again \\
        --teacher.path teacher --data.train speech/train.jsonl

The student has the teacher's whole encoder, frozen, and the last of its six decoder layers.
`askd.py` differs only in its objective.
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
    teacher=TeacherConfig(path="teacher"),
    student=StudentConfig(decoder_layers=1, frozen=("encoder",)),
    data=DataConfig(target_buckets=(64,), cache="cache"),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig(init_value=0.0), ce_weight=1.0, chunk_tokens=4096
    ),
    optimizer=OptimizerConfig(
        learning_rate=2e-3, warmup=0.05, decay="cosine", weight_decay=0.01, beta2=0.98
    ),
    training=TrainingConfig(
        global_batch_size=16, steps=1600, log_every=20, save_every=0, eval_batch_size=16
    ),
)
