"""The review page: a run's episodes as a grid, their videos with what the robot did at that moment, and what people say of them."""
