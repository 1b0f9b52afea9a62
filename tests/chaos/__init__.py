"""Real processes and a real engine under every fault that can be made here. See ``test_chaos``."""
