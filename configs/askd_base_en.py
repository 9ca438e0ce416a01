"""placeholder docstring"""
from fastwhisper_jax.config import *
config = Config(student=StudentConfig(dropout=0.1), data=DataConfig(encoder_cache="cache",target_buckets=(16,32,64,128)), objective=ObjectiveConfig(teacher_weight=ScheduleConfig("cosine",1.0,0.3), self_weight=ScheduleConfig("linear",0.0,0.2,0.5,0.2),ce_weight=None,ema_decay=.99), optimizer=OptimizerConfig(learning_rate=3e-4,weight_decay=.01), training=TrainingConfig(epochs=20))
