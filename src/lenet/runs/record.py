"""run.json: what a training was and what came of it. A function of its inputs: no time, no machine, no MLflow id."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lenet.params.schema import Variant
from lenet.runtime.files import read_json, reading, write_json

Row = dict[str, float | int | str]
History = list[Row]
"""What FastLeNet.history holds: a row an epoch."""


class _File(BaseModel):
    """run.json."""

    model_config = ConfigDict(strict=True)

    variant: str
    seed: int
    run: dict[str, str]
    parameters: Variant


@dataclass(frozen=True)
class Record:
    """One training.

    Attributes:
        variant: the variant's name.
        seed: the run's seed.
        parameters: the resolved block.
        key: ``run.key``, the identity of the training.
        data: ``data.sha256``, the digest of the digits it sees.
        signature: what the code makes of this block (signature.py); empty if recorded before there were any.
        weights: ``weights.sha256``; None while it trains.
    """

    variant: str
    seed: int
    parameters: Variant
    key: str
    data: str
    signature: str
    weights: str | None = None

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}"

    def with_weights(self, digest: str) -> "Record":
        """The same record once the training has ended."""
        return replace(self, weights=digest)

    @property
    def fingerprints(self) -> dict[str, str]:
        """What identifies the run, under public names, as in metrics/*.json and in MLflow's tags."""
        found: dict[str, str | None] = {
            "key": self.key,
            "weights.sha256": self.weights,
            "data.sha256": self.data,
            "signature": self.signature,
        }
        return {name: digest for name, digest in found.items() if digest}

    def write(self, path: Path) -> None:
        """Write run.json."""
        content: dict[str, Any] = {
            "variant": self.variant,
            "seed": self.seed,
            "run": self.fingerprints,
            "parameters": self.parameters.model_dump(),
        }
        write_json(path, content)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read run.json. Raises InputError if it is missing or not one."""
        content = read_json(path, _File, "a run record")
        with reading(path, "a run record"):
            run = content["run"]
            return cls(
                variant=content["variant"],
                seed=content["seed"],
                parameters=Variant.model_validate(content["parameters"]),
                key=run["key"],
                data=run["data.sha256"],
                signature=run.get("signature", ""),
                weights=run["weights.sha256"],
            )
