"""Distil-Whisper's objective for whisper-large-v3, on a TPU pod: the control of `askd_large_v3`.

    fastwhisper train configs/distil_large_v3.py --run-dir runs/distil_large_v3 \\
        --data.train train.jsonl --data.eval test.jsonl

The objective is 0.8 CE + 1.0 KL at temperature 2 throughout (arXiv 2311.00430, its released code).
Everything else is as in `askd_large_v3`: the same student, the same batches in the same order, and
the same number of updates. So two runs differ in their objective only.

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
        teacher_weight=ScheduleConfig(init_value=1.0),
        ce_weight=0.8,
        temperature=2.0,
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
