"""The one training loop, its objectives, optimizer and schedules."""
