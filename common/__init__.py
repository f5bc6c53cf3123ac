"""What every stage needs and is no format: errors, files, processes, options. It imports no folder of ours."""
