"""The `.proto` files of the vocabulary, for compilers.

    python -m grpc_tools.protoc -I "$(python -m accord.protos)" -I protos ...

makes `import "accord/v1/policy.proto"` work in your own contracts.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def include() -> Path:
    """The folder to give protoc as `-I`."""
    # The wheel brings them along; a checkout has them where all contracts are.
    return _HERE if (_HERE / "accord").is_dir() else _HERE.parents[2] / "protos"
