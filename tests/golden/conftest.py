# Scripts for an environment with torch.
collect_ignore_glob = ["make_*.py", "compare_*.py"]
