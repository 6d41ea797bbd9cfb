"""The executor: runs jobs with cwltool, and keeps the files that they read and write."""
