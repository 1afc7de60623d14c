"""Random histories of real databases: the same ones in every run."""

from tests.harness.examples import use_same_examples

use_same_examples()
