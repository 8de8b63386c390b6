"""What the code makes of a study's trials: the signature of every structure that they can have."""

from pathlib import Path

from lenet.arithmetic import conformance
from lenet.digits.data import load_digits
from lenet.params.schema import Params, Variant
from lenet.pipeline import signing
from lenet.runtime.files import write_json
from lenet.sweep.settings import Settings
from lenet.sweep.space import Space
from lenet.training import fingerprint, signature


def stage(params: Params, made: Settings, name: str, data: Path, out: Path) -> None:
    """Stage signature: sign the structures of a study's trials, and write these signatures by the structures' digests.

    Args:
        params: the blocks of variants.
        made: how studies are made.
        name: the variant.
        data: the file of training digits.
        out: the file of the signatures.

    Raises:
        InputError: no such study, unfit data, or an arithmetic that is off.
    """
    conformance.check()
    variant = params.variant(name)
    made.check(variant, name)
    digits = load_digits(data)
    corners = Space(made.spaces[name], name).corners(variant.model_dump(mode="json"))
    blocks = (signature.structure(Variant.model_validate(corner)) for corner in corners)
    structures = {fingerprint.block_sha256(block): block for block in blocks}
    found = {block: signing.of(one, digits) for block, one in sorted(structures.items())}
    write_json(out, {"data": signature.digits_sha256(digits), "structures": found})
