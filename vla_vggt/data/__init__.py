"""From demonstration files to batches on the device."""
