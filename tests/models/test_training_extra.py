import importlib.util

from tests.services import missing


def test_pytorch_is_there_for_the_tests_of_training() -> None:
    if importlib.util.find_spec("torch") is None:
        missing("PyTorch is not installed; run: pip install 'lookalike[train]'")
