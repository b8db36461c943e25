"""One run as a person meets it: its state on a rank, its folder, its terminal and its trackers.

For other rooms: `state.Run`, `run_dir.lock_folder`, `run_dir.MetricsLog`, `run_dir.read_metrics`,
`console.TrainingLog` and `trackers.start_trackers`. Import them from their files.
"""
