"""What a study leaves behind: its directory and files, the printed report, the explanation, and models."""
