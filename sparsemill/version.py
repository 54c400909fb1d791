"""The version, in its one place: the wheel, `sparsemill --version` and `sparsemill.__version__` read it here."""

__version__ = "0.1.0"
