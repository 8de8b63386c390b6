"""What a command says when its input is at fault."""


class InputError(Exception):
    """Bad parameters, data, names or files: the command ends with this one line and exit status 2."""


class ParamsError(InputError):
    """A fault in params.yaml: names the path, the value and what would be legal."""


class Diverged(InputError):
    """A training in which a number has become infinite: names what, the step and the epoch."""
