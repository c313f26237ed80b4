#!/usr/bin/env python3
"""`vla-train`, as a script: python scripts/train.py --data_path FILE.hdf5 --task_names pick_and_place --log_dir ./logs"""

from vla_vggt.cli import main

if __name__ == "__main__":
    main()
