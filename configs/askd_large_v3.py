"""ASKD of whisper-large-v3 into its encoder and two decoder layers, on a TPU pod.

    fastwhisper train configs/askd_large_v3.py --run-dir runs/large_v3 \\
        --data.train train.jsonl --data.eval test.jsonl

The whole encoder is frozen and shared, so it is run once for teacher and student. Length, batch and
learning rate are Distil-Whisper's (arXiv 2311.00430: 80,000 updates of 256 utterances at 1e-4). The
teacher's weight falls to 0.2 over the first three quarters of the run. The self teacher, an EMA of
the student, gains weight from the middle of the run on. Utterances are joined to fill the 30 s
window. Parameters, optimiser state and self teacher are divided over 8 chips, the batch over all.

Distil-Whisper's labels are the teacher's own transcripts. This package does not make them yet. Give
human transcripts, or a manifest with the teacher's transcripts: `fastwhisper transcribe --format
json` writes them as `text` of each file.

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
        decoder_layers=2, frozen=("encoder",), dtype="bfloat16", rematerialise="everything"
    ),
    data=DataConfig(
        target_buckets=(128, 256, 448),
        concatenate_probability=0.9,
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
