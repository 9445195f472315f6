"""The one door to pyarrow, an optional package that takes a while to import."""

from typing import Any


def pyarrow() -> Any:
    """pyarrow with its parquet part; raises RuntimeError with the remedy where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError(
            f"parquet files need pyarrow ({error}); install it with pip install -e '.[parquet]'"
        ) from error
    return pyarrow
