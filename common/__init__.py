"""What every stage needs besides the formats: errors, files, processes, options. Nothing here imports other folders."""
