"""What every package stands on: YAML of jobs and studies, words and pages, names that jobs and stores share."""
