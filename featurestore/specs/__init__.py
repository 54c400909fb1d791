"""Jobs and studies as YAML files: read safely, validated, and refused in one sentence."""
