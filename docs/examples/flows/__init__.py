"""Common workflows in few lines. Each module has `WORKFLOW`; `tests/docs/test_flows.py` kills and resumes them."""
