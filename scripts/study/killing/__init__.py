"""What `scripts.study.kill` kills, and how."""
