"""Short windows and ASKD: whisper-large-v3 into all of its encoder and two decoder layers.

    fastwhisper train configs/short_large_v3.py --run-dir gs://BUCKET/short \\
        --data.train train.jsonl --data.eval test.jsonl --data.cache gs://BUCKET/cache

An update costs what its window costs: a chip does a sixth as much for windows of 4 s as for
those of 30 s (`fastwhisper plan ... --window 4`). The teacher hears every utterance once, in 30 s
and without SpecAugment. The cache keeps what its decoder says, so that no update runs the teacher.
The student's encoder is frozen, but it hears SpecAugment, so it is run in every update.

Hardware: a TPU slice of 8 to 256 chips. Hours: not yet measured; `fastwhisper plan` gives a lower
bound. Result: not yet measured.
"""

from fastwhisper_jax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
)

config = Config(
    teacher=TeacherConfig(path="openai/whisper-large-v3", dtype="bfloat16"),
    student=StudentConfig(
        decoder_layers=2,
        windows_seconds=(2.0, 4.0, 8.0, 15.0, 30.0),
        margin_seconds=0.3,
        frozen=("encoder",),
        dtype="bfloat16",
        rematerialise="everything",
    ),
    data=DataConfig(
        target_buckets=(32, 128, 256, 448),
        longer_window_probability=0.2,
        time_masks=2,
        freq_masks=2,
        cache="runs/cache",
        threads=16,
    ),
    objective=ObjectiveConfig(
        teacher_weight=ScheduleConfig("cosine", init_value=1.0, end_value=0.2, steps=0.75),
        self_weight=ScheduleConfig("linear", end_value=0.3, begin=0.5, steps=0.25),
        ce_weight=0.8,
        temperature=2.0,
        self_teacher="ema",
        ema_decay=0.9995,
        chunk_tokens=1024,
    ),
    optimizer=OptimizerConfig(learning_rate=1e-4, warmup=500, decay="linear"),
    training=TrainingConfig(
        global_batch_size=256,
        steps=80_000,
        log_every=25,
        eval_every=5_000,
        save_every=1_000,
        keep_checkpoints=3,
        eval_batch_size=256,
    ),
    mesh=MeshConfig(data=-1, fsdp=8),
)
