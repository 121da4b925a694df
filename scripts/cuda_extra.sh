#!/bin/sh
# Prints ",cuda13x" or ",cuda12x", whichever extra fits the NVIDIA driver; nothing without a driver.
# CUDA 13 needs driver 580 or newer, CUDA 12 driver 525 or newer
# (https://docs.nvidia.com/deploy/cuda-compatibility/).
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
major=${driver%%.*}
case "$major" in
"" | *[!0-9]*) ;;
*)
    if [ "$major" -ge 580 ]; then
        echo ",cuda13x"
    elif [ "$major" -ge 525 ]; then
        echo ",cuda12x"
    fi
    ;;
esac
