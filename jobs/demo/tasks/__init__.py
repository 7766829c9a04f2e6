"""What is asked, claimed and stated about the demo's pictures, and in which public format: one file per task."""
