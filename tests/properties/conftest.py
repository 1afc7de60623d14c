"""Properties are tried with the same examples in every run."""

from tests.harness.examples import use_same_examples

use_same_examples()
