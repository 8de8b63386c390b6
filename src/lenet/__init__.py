"""LeNet-5 as published in 1998 and as built today, tracked and reproducible.

Importing the package fixes what must be fixed before torch or mlflow load: one CPU thread per process (the bits
of a training then do not depend on the number of cores, and processes side by side do not stall each other), and no
usage telemetry.
"""

import os

THREADS = 1

os.environ.update(
    OMP_NUM_THREADS=str(THREADS),
    MKL_NUM_THREADS=str(THREADS),
    OPENBLAS_NUM_THREADS=str(THREADS),
    OMP_WAIT_POLICY="PASSIVE",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="1",
)
