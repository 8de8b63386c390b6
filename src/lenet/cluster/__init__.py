"""All of Dask: functions that other processes compute, on this machine or on others. It knows nothing of Optuna.

Read in this order: ``scheduler`` (a cluster that is started here, or one that is there), ``workers`` (which of its
workers are fit, what they are given, and what comes back).
"""

from distributed import Client

from lenet.cluster.scheduler import opened, reason
from lenet.cluster.workers import Died, Ended, Workers, admitted

__all__ = ["Client", "Died", "Ended", "Workers", "admitted", "opened", "reason"]
