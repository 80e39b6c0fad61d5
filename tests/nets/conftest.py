"""What the tests of networks share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Let one thread compute: what is ours on a CPU is for one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
