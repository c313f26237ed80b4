#!/usr/bin/env python3
"""`vla-eval`, as a script: python scripts/eval.py --checkpoint ./logs/best_model.pth --device cuda"""

from harness.cli import main

if __name__ == "__main__":
    main()
