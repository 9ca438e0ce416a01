"""XLA's flags for tests: several devices, and programs that compile in half the time."""

import importlib.metadata


def compiler_flags(devices: int, *, is_optimised: bool = False) -> str:
    """The value of XLA_FLAGS for a process with that many virtual CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if not is_optimised and importlib.metadata.version("jaxlib").startswith("0.10."):
        # They leave less code for LLVM to compile. Later releases end the process at the first.
        flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    return flags
