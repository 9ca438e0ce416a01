"""Trains the demo's teacher from random weights: all parameters, with cross-entropy only.

`runs/demo_teacher.sh` runs this recipe, after it has made the untrained model and the speech.
"""

from fastwhisper_jax.config import (
    Config,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudentConfig,
    TrainingConfig,
)

config = Config(
    student=StudentConfig(decoder_layers=None, frozen=()),
    data=DataConfig(target_buckets=(16, 32, 48, 64)),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig(init_value=0.0), ce_weight=1.0, chunk_tokens=4096
    ),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, warmup=400, decay="cosine", weight_decay=0.01, beta2=0.98
    ),
    training=TrainingConfig(
        global_batch_size=8,
        steps=6000,
        eval_every=500,
        save_every=500,
        log_every=25,
        eval_batch_size=16,
        max_new_tokens=60,
    ),
)
