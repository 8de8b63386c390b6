"""`python -m lenet`, how the stages of dvc.yaml call the code of their own working directory."""

from lenet.cli import main

main()
